import { BackupError } from './errors.ts'

const UNIT_BYTES: Record<string, number> = {
  '': 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
}

/**
 * Reads a number of bytes: a number by itself, or with KiB, MiB, GiB, kB, MB or GB, such as `256MiB`.
 * @throws BackupError USAGE for anything else.
 */
export function parseSize(text: string): number {
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?) ?(|KiB|MiB|GiB|kB|MB|GB)$/.exec(text) ?? []
  if (amount !== undefined) return Math.round(Number(amount) * (UNIT_BYTES[unit] as number))
  throw new BackupError(
    'USAGE',
    `${JSON.stringify(text)} is no size. Write bytes, or a number with KiB, MiB, GiB, kB, MB or GB, such as 256MiB.`,
  )
}
