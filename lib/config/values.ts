import { z } from 'zod'
import { DURATION, parseDuration } from '../duration.ts'

/**
 * What a secret can be written as: never as itself, so that the file can be shown to somebody. Without flags, which the
 * JSON Schema would not have.
 */
export const SECRET_FORMS = /^(?:\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:[\s\S]+|command:[\s\S]+)$/

/** Of what is missing or empty, that is said; of what is there, `text`. */
function unlessAbsent(text: string) {
  return ({ input }: { input?: unknown }) => (input === undefined || input === null ? undefined : text)
}

const SECRET_ERROR = unlessAbsent(
  'is a secret: write where it is, as ${NAME} of the environment, file:PATH, or command:PROGRAM, not itself',
)
const DURATION_ERROR = unlessAbsent(
  'is not a length of time: write whole numbers with w, d, h, m or s, such as 26h or 1d12h',
)

/** Where a secret is: `${NAME}` of the environment, `file:PATH`, or `command:PROGRAM ARGUMENTS`, its output. */
export const secret = z
  .string({ error: SECRET_ERROR })
  .regex(SECRET_FORMS, { error: SECRET_ERROR })
  .meta({ description: 'Where the secret is: ${NAME} of the environment, file:PATH, or command:PROGRAM ARGUMENTS.' })

/** A whole number from one bound to the other. */
export function whole(min: number, max: number = Number.MAX_SAFE_INTEGER) {
  const range = max === Number.MAX_SAFE_INTEGER ? `, ${min} or more` : ` from ${min} to ${max}`
  const error = unlessAbsent(`must be a whole number${range}`)
  return z.int({ error }).min(min, { error }).max(max, { error })
}

/** A length of time, such as `26h` or `1d12h`. It stays text: `parseDuration` reads it. */
export const duration = z
  .string({ error: DURATION_ERROR })
  // For the JSON Schema, which has no more of it.
  .regex(DURATION, { error: DURATION_ERROR })
  .refine(isDuration, { error: DURATION_ERROR })
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

function size(pattern: RegExp, text: string) {
  const error = unlessAbsent(text)
  return z
    .union([z.number().min(1), z.string().regex(pattern, { error })], { error })
    .overwrite((value) => {
      if (typeof value === 'number') return Math.round(value)
      const found = pattern.exec(value)
      // What is no size comes by here too, and has been refused.
      if (!found) return value
      const [, amount, unit = ''] = found
      return Math.round(Number(amount) * (UNITS[unit] as number))
    })
    .pipe(z.number({ error }).min(1, { error }))
}

function isDuration(text: string): boolean {
  try {
    parseDuration(text)
    return true
  } catch {
    return false
  }
}
