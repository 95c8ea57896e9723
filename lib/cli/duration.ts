import { BackupError } from '../errors.ts'

const UNITS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `90s`, `10m`, `26h` or `7d` in milliseconds. @throws BackupError USAGE for anything else. */
export function parseDuration(text: string): number {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? []
  if (count === undefined || unit === undefined) {
    throw new BackupError('USAGE', `${JSON.stringify(text)} is not a time. Write 90s, 10m, 26h or 7d.`)
  }
  return Number(count) * (UNITS[unit] as number)
}
