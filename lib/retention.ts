import { isDate } from 'node:util/types'
import { parseDuration } from './duration.ts'
import { BackupError } from './errors.ts'
import { nearest } from './nearest.ts'

/** Which snapshots are to be kept. One that any rule keeps stays; a rule that is 0 or left out keeps none. */
export interface RetentionPolicy {
  /** The newest n. */
  keepLast?: number | undefined
  /** The newest of each of the last n hours that have one, in UTC; and so on for days to years. */
  keepHourly?: number | undefined
  keepDaily?: number | undefined
  /** ISO weeks: from Monday. */
  keepWeekly?: number | undefined
  keepMonthly?: number | undefined
  keepYearly?: number | undefined
  /** All that are at most so old, such as `14d` or `1d12h`. */
  keepWithin?: string | undefined
  /**
   * The floor: the newest n complete ones stay whatever the rules say, from 1. When left out it is 1, and 3 where
   * `keepWithin` is the only rule: age alone would remove everything once backups have stopped.
   */
  minimum?: number | undefined
}

/** What `decideRetention` has to know of a snapshot. */
export interface RetentionSnapshot {
  server: string
  id: string
  /** Tells two objects of one id apart. */
  key?: string
  created: Date
  complete: boolean
  pinned?: boolean
}

/** Whether a snapshot stays, and because of what. */
export interface Decision<T> {
  snapshot: T
  action: 'keep' | 'remove'
  /** Every rule that keeps it, or, when none does, why each of them does not. Never empty. */
  reasons: string[]
}

/** What is kept when nobody says what to keep. */
export const DEFAULT_POLICY: Readonly<RetentionPolicy> = { keepHourly: 24, keepDaily: 14, keepWeekly: 8 }

const AGE_ONLY_MINIMUM = 3
const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000
/** The epoch was a Thursday: its ISO week began three days before it. */
const EPOCH_DAY_OF_WEEK = 3

interface CalendarRule {
  option: 'keepHourly' | 'keepDaily' | 'keepWeekly' | 'keepMonthly' | 'keepYearly'
  noun: string
  adverb: string
  /** The number of the hour, day … that a time is in. Only UTC: no hour is there twice and none is missing. */
  bucket(time: Date): number
  label(time: Date): string
}

const CALENDAR: readonly CalendarRule[] = [
  {
    option: 'keepHourly',
    noun: 'hour',
    adverb: 'hourly',
    bucket: (time) => Math.floor(time.getTime() / HOUR_MS),
    label: (time) => `${time.toISOString().slice(0, 13)}Z`,
  },
  {
    option: 'keepDaily',
    noun: 'day',
    adverb: 'daily',
    bucket: (time) => Math.floor(time.getTime() / DAY_MS),
    label: (time) => time.toISOString().slice(0, 10),
  },
  { option: 'keepWeekly', noun: 'week', adverb: 'weekly', bucket: weekNumber, label: weekLabel },
  {
    option: 'keepMonthly',
    noun: 'month',
    adverb: 'monthly',
    bucket: (time) => time.getUTCFullYear() * 12 + time.getUTCMonth(),
    label: (time) => time.toISOString().slice(0, 7),
  },
  {
    option: 'keepYearly',
    noun: 'year',
    adverb: 'yearly',
    bucket: (time) => time.getUTCFullYear(),
    label: (time) => time.toISOString().slice(0, 4),
  },
]

/** Weeks from Monday, counted on from the one of the epoch. */
function weekNumber(time: Date): number {
  return Math.floor((Math.floor(time.getTime() / DAY_MS) + EPOCH_DAY_OF_WEEK) / 7)
}

/** ISO 8601: a week is of the year that its Thursday is in. */
function weekLabel(time: Date): string {
  const thursday = new Date(weekNumber(time) * 7 * DAY_MS)
  const year = thursday.getUTCFullYear()
  const week = Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / (7 * DAY_MS)) + 1
  return `${year}-W${String(week).padStart(2, '0')}`
}

/**
 * Holds a policy to what it can be.
 * @throws BackupError USAGE for a number that is negative or not whole, a `keepWithin` that is no length of time, a
 * `minimum` below 1, a rule that there is not, and a policy that keeps nothing.
 */
export function checkPolicy(policy: RetentionPolicy): void {
  const rules = ['keepLast', ...CALENDAR.map(({ option }) => option)] as const
  const names: readonly string[] = [...rules, 'keepWithin', 'minimum']
  if (typeof policy !== 'object' || policy === null) throw new BackupError('USAGE', 'A policy is an object with rules.')
  // Of a program without types, and meant for the prune: left out, it would remove what it was only to show.
  if (Object.keys(policy).some((name) => /^dry/i.test(name))) {
    throw new BackupError('USAGE', 'dryRun is no retention rule: it goes into the options, after the policy.')
  }
  // Of a program without types: left out, a misspelt rule would let what it keeps be removed.
  const unknown = Object.keys(policy).find((name) => /^(keep|min)/i.test(name) && !names.includes(name))
  if (unknown !== undefined) {
    const meant = nearest(unknown, names)
    const hint = meant === undefined ? `There are ${names.join(', ')}.` : `Is it ${meant}?`
    throw new BackupError('USAGE', `There is no retention rule ${JSON.stringify(unknown)}. ${hint}`)
  }
  for (const name of [...rules, 'minimum'] as const) {
    const value = policy[name as keyof RetentionPolicy]
    const least = name === 'minimum' ? 1 : 0
    if (value !== undefined && !(Number.isSafeInteger(value) && (value as number) >= least)) {
      throw new BackupError('USAGE', `${name} (${flagOf(name)}) must be a whole number, ${least} or more.`)
    }
  }
  if (policy.keepWithin !== undefined) parseDuration(policy.keepWithin)
  else if (!rules.some((name) => policy[name as keyof RetentionPolicy])) {
    throw new BackupError(
      'USAGE',
      `This policy keeps nothing. Give at least one of ${rules.join(', ')} and keepWithin, above 0.`,
    )
  }
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/**
 * Decides which snapshots stay, each server for itself. Pure: it reads no clock and no store.
 *
 * Unfinished snapshots stay, and so do those dated after `now`: neither takes a place in any rule, so a clock that was
 * wrong once expires nothing. Pinned ones stay and take their places as others do. The newest complete snapshot always
 * stays.
 * @param snapshots in any order.
 * @param now decides what is in the future, and `keepWithin`; the other rules count only what is there.
 * @returns one decision a snapshot, by server, then oldest first.
 * @throws BackupError USAGE for a policy that `checkPolicy` refuses, a `now` that is no time, or a `created` that is no Date.
 */
export function decideRetention<T extends RetentionSnapshot>(
  snapshots: readonly T[],
  policy: RetentionPolicy,
  now: Date,
): Decision<T>[] {
  checkPolicy(policy)
  if (!isDate(now) || Number.isNaN(now.getTime())) {
    throw new BackupError('USAGE', 'The time to decide at is not a time. Give a Date.')
  }
  const undated = snapshots.find(({ created }) => !isDate(created))
  if (undated) throw new BackupError('USAGE', `The time of the snapshot ${undated.id} is no Date.`)
  const sorted = [...snapshots].sort(byAge)
  const servers = Map.groupBy(sorted, ({ server }) => server)
  return [...servers.values()].flatMap((ofServer) => decideServer(ofServer, policy, now.getTime()))
}

function byAge(a: RetentionSnapshot, b: RetentionSnapshot): number {
  return (
    compare(a.server, b.server) ||
    a.created.getTime() - b.created.getTime() ||
    compare(a.id, b.id) ||
    compare(a.key ?? '', b.key ?? '')
  )
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function decideServer<T extends RetentionSnapshot>(
  oldestFirst: readonly T[],
  policy: RetentionPolicy,
  now: number,
): Decision<T>[] {
  const kept = new Map<T, string[]>(oldestFirst.map((snapshot) => [snapshot, []]))
  const dropped = new Map<T, string[]>(oldestFirst.map((snapshot) => [snapshot, []]))
  for (const [snapshot, reasons] of kept) {
    if (snapshot.pinned) reasons.push('pinned')
    if (!snapshot.complete) reasons.push('unfinished: not touched')
    else if (isFuture(snapshot, now)) reasons.push('dated in the future')
  }
  const real = oldestFirst.filter((snapshot) => snapshot.complete && !isFuture(snapshot, now)).reverse()
  const say = (rule: (snapshot: T, place: number) => Verdict) => {
    for (const [at, snapshot] of real.entries()) {
      const { keep, reason } = rule(snapshot, at + 1)
      ;((keep ? kept : dropped).get(snapshot) as string[]).push(reason)
    }
  }
  const { keepLast: last, keepWithin: within } = policy
  if (real[0]) kept.get(real[0])?.push('newest complete snapshot')
  if (last) {
    say((_, place) => (place <= last ? keep(`last ${place} of ${last}`) : drop(`not among the last ${last}`)))
  }
  for (const rule of CALENDAR) {
    const count = policy[rule.option]
    if (count) say(calendarVerdicts(rule, count))
  }
  if (within !== undefined) {
    const oldest = now - parseDuration(within)
    say(({ created }) => (created.getTime() >= oldest ? keep(`within ${within}`) : drop(`older than ${within}`)))
  }
  const minimum = minimumOf(policy)
  if (minimum > 1) {
    for (const [at, snapshot] of real.slice(0, minimum).entries()) {
      kept.get(snapshot)?.push(`floor ${at + 1} of ${minimum}`)
    }
  }
  return oldestFirst.map((snapshot) => {
    const reasons = kept.get(snapshot) as string[]
    return reasons.length > 0
      ? { snapshot, action: 'keep', reasons }
      : { snapshot, action: 'remove', reasons: dropped.get(snapshot) as string[] }
  })
}

interface Verdict {
  keep: boolean
  reason: string
}

const keep = (reason: string): Verdict => ({ keep: true, reason })
const drop = (reason: string): Verdict => ({ keep: false, reason })

/** A rule to be asked of each snapshot once, the newest first. */
function calendarVerdicts({ noun, adverb, bucket, label }: CalendarRule, count: number) {
  let current: number | undefined
  let place = 0
  return ({ created }: RetentionSnapshot): Verdict => {
    const found = bucket(created)
    const isNewest = found !== current
    if (isNewest) {
      current = found
      place += 1
    }
    if (place > count) return drop(`older than the last ${count === 1 ? noun : `${count} ${noun}s`} with one`)
    return isNewest
      ? keep(`newest of ${noun} ${label(created)} (${adverb} ${place} of ${count})`)
      : drop(`${noun} ${label(created)} has a newer one`)
  }
}

/** What is dated by no time that can be understood is no safer to remove. */
function isFuture({ created }: RetentionSnapshot, now: number): boolean {
  return !(created.getTime() <= now)
}

function minimumOf(policy: RetentionPolicy): number {
  if (policy.minimum !== undefined) return policy.minimum
  return policy.keepLast || CALENDAR.some(({ option }) => policy[option]) ? 1 : AGE_ONLY_MINIMUM
}
