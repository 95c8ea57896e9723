import { z } from 'zod'
import { parseDuration } from '../duration.ts'

/** What a secret can be written as: never as itself, so that the file can be shown to somebody. */
export const SECRET_FORMS = /^(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:.+|command:.+)$/s

/** Where a secret is: `${NAME}` of the environment, `file:PATH`, or `command:PROGRAM ARGUMENTS`, its output. */
export const secret = z
  .string()
  .regex(SECRET_FORMS, {
    error: 'is a secret: write where it is, as ${NAME} of the environment, file:PATH, or command:PROGRAM, not itself',
  })
  .meta({ description: 'Where the secret is: ${NAME} of the environment, file:PATH, or command:PROGRAM ARGUMENTS.' })

/** A length of time, such as `26h` or `1d12h`. It stays text: `parseDuration` reads it. */
export const duration = z
  .string()
  .refine(isDuration, {
    error: 'is not a length of time: write whole numbers with w, d, h, m or s, such as 26h or 1d12h',
  })
  .meta({ description: 'A length of time: 90s, 26h, 1d12h.' })

const UNITS: Record<string, number> = { '': 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, kB: 1e3, MB: 1e6, GB: 1e9 }
const SIZE = /^(\d+(?:\.\d+)?) ?(|KiB|MiB|GiB|kB|MB|GB)$/

/** A number of bytes, or text such as `16MiB`; becomes the number. */
export const bytes = size(SIZE, 'is no size: write bytes, or a number with KiB, MiB, GiB, kB, MB or GB, such as 16MiB')

/** Bytes a second, or text such as `20MiB/s`; becomes the number. */
export const rate = size(
  /^(\d+(?:\.\d+)?) ?(|KiB|MiB|GiB|kB|MB|GB)\/s$/,
  'is no rate: write bytes a second, or a number with KiB/s, MiB/s, GiB/s, kB/s, MB/s or GB/s, such as 20MiB/s',
)

function size(pattern: RegExp, error: string) {
  return z
    .union([z.number().min(1), z.string().regex(pattern, { error })], { error })
    .overwrite((value) => {
      if (typeof value === 'number') return Math.round(value)
      const [, amount, unit = ''] = pattern.exec(value) as RegExpExecArray
      return Math.round(Number(amount) * (UNITS[unit] as number))
    })
    .pipe(z.number())
}

function isDuration(text: string): boolean {
  try {
    parseDuration(text)
    return true
  } catch {
    return false
  }
}
