import { formatCount } from '../cli/format.ts'
import type { RetentionPolicy } from '../retention.ts'

/** A time as the page writes it, in UTC: `2026-11-27 19:00 UTC`. @param at ms since 1970, or ISO 8601. */
export function timeText(at: number | string): string {
  return `${shortTime(at)} UTC`
}

/** The same where a heading says UTC. */
export function shortTime(at: number | string): string {
  return new Date(at).toISOString().slice(0, 16).replace('T', ' ')
}

/** From one time to another, the day once where it is the same. */
export function rangeText(from: string, to: string): string {
  const [first, last] = [shortTime(from), shortTime(to)]
  if (first === last) return first
  return first.slice(0, 10) === last.slice(0, 10) ? `${first} to ${last.slice(11)}` : `${first} to ${last}`
}

export function countText(count: number): string {
  return formatCount(count, 'snapshot')
}

const AGE_STEPS: readonly (readonly [number, string])[] = [
  [86_400_000, 'day'],
  [3_600_000, 'hour'],
  [60_000, 'minute'],
]

/** A length of time in the largest unit that it has twice: `40 minutes`, `30 hours`, `9 days`. */
export function ageText(ms: number): string {
  for (const [size, noun] of AGE_STEPS) if (ms >= 2 * size) return formatCount(Math.floor(ms / size), noun)
  return ms < 60_000 ? 'under a minute' : '1 minute'
}

const RULES: readonly (readonly [keyof RetentionPolicy, (value: string) => string])[] = [
  ['keepLast', (n) => `the last ${n}`],
  ['keepHourly', (n) => `${n} hourly`],
  ['keepDaily', (n) => `${n} daily`],
  ['keepWeekly', (n) => `${n} weekly`],
  ['keepMonthly', (n) => `${n} monthly`],
  ['keepYearly', (n) => `${n} yearly`],
  ['keepWithin', (time) => `all of the last ${time}`],
  ['minimum', (n) => `at least ${n}`],
]

/** A policy in words: `24 hourly, 14 daily, 8 weekly`. */
export function policyText(policy: RetentionPolicy): string {
  return RULES.flatMap(([name, say]) => (policy[name] ? [say(String(policy[name]))] : [])).join(', ')
}
