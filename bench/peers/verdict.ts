import { formatBytes } from '../../lib/cli/format.ts'
import { median } from '../support.ts'
import type { Lap, Laps, Spent } from './race.ts'

/** What is put side by side, and what it is called. */
export const OPERATIONS = { backup: 'backup', restore: 'whole restore', one: 'one file' } as const
export type Operation = keyof typeof OPERATIONS

/** The most that millrace's wall time may be of a peer's, or (a number) of the fastest peer's. */
export type Limits = Partial<Record<Operation, Record<string, number> | number>>

const SELF = 'millrace'

/** Medians of an operation. */
export interface Standing {
  name: string
  seconds: number
  runs: number[]
  cpuSeconds: number
  peakBytes: number
  storedBytes: number
}

/** Of those that can do it, in the order of the laps. */
export function standings(laps: Laps, operation: Operation): Standing[] {
  return [...laps].flatMap(([name, all]) => {
    const spent = all.map((lap) => lap[operation]).filter((one): one is Spent => one !== undefined)
    if (spent.length === 0) return []
    const of = (value: (one: Spent) => number) => median(spent.map(value))
    return [
      {
        name,
        seconds: of((one) => one.seconds),
        runs: spent.map((one) => one.seconds),
        cpuSeconds: of((one) => one.cpuSeconds),
        peakBytes: of((one) => one.peakBytes),
        storedBytes: median(all.map((lap: Lap) => lap.storedBytes)),
      },
    ]
  })
}

/** What a peer's limit is; undefined for one that has none. */
export function limitOf(
  limits: Limits,
  operation: Operation,
  peer: string,
  all: readonly Standing[],
): number | undefined {
  const limit = limits[operation]
  if (typeof limit !== 'number') return limit?.[peer]
  const fastest = all.filter(({ name }) => name !== SELF).sort((a, b) => a.seconds - b.seconds)[0]
  return fastest?.name === peer ? limit : undefined
}

export const HEADER = [
  'what',
  'program',
  'wall',
  'runs',
  'CPU',
  'peak memory',
  'stored',
  "millrace's wall of its",
  'bar',
] as const

/** The rows of HEADER. */
export function rowsOf(laps: Laps, limits: Limits): string[][] {
  return (Object.keys(OPERATIONS) as Operation[]).flatMap((operation) => {
    const all = standings(laps, operation)
    const self = all.find(({ name }) => name === SELF)
    return all.map((one) => {
      const limit = limitOf(limits, operation, one.name, all)
      const ratio = self && one !== self ? self.seconds / one.seconds : undefined
      return [
        OPERATIONS[operation],
        one.name,
        `${one.seconds.toFixed(2)} s`,
        one.runs.map((run) => run.toFixed(2)).join(', '),
        `${one.cpuSeconds.toFixed(2)} s`,
        formatBytes(one.peakBytes),
        operation === 'backup' ? formatBytes(one.storedBytes) : '',
        ratio?.toFixed(2) ?? '',
        limit === undefined || ratio === undefined ? '' : verdict(ratio, limit),
      ]
    })
  })
}

/** `0.60: met`, or by how much not. */
export function verdict(ratio: number, limit: number): string {
  return `${limit.toFixed(2)}: ${ratio <= limit ? 'met' : 'missed'}`
}

/** Where millrace comes off worse, a sentence for each operation in which it does. */
export function losses(laps: Laps): string[] {
  return (Object.keys(OPERATIONS) as Operation[]).flatMap((operation) => {
    const all = standings(laps, operation)
    const self = all.find(({ name }) => name === SELF)
    if (!self) return []
    const worse = (what: string, value: (one: Standing) => number, format: (value: number) => string) => {
      const better = all.filter((one) => value(one) < value(self) && format(value(one)) !== format(value(self)))
      if (better.length === 0) return []
      const others = better.map((one) => `${one.name} (${format(value(one))})`).join(', ')
      return [`${what} than ${others} with ${format(value(self))}`]
    }
    const found = [
      ...worse('slower', (one) => one.seconds, seconds),
      ...worse('more CPU', (one) => one.cpuSeconds, seconds),
      ...worse('more memory', (one) => one.peakBytes, formatBytes),
      ...(operation === 'backup' ? worse('more stored', (one) => one.storedBytes, formatBytes) : []),
    ]
    return found.length === 0 ? [] : [`millrace loses, ${OPERATIONS[operation]}: ${found.join('; ')}.`]
  })
}

function seconds(value: number): string {
  return `${value.toFixed(2)} s`
}

/** Wall times as groups of a bar chart; the mark is what millrace has to keep below. */
export function groupsOf(laps: Laps, limits: Limits) {
  return (['backup', 'restore'] as const).map((operation) => {
    const all = standings(laps, operation)
    const allowed = all.flatMap((one) => {
      const limit = limitOf(limits, operation, one.name, all)
      return limit === undefined ? [] : [limit * one.seconds]
    })
    return {
      label: OPERATIONS[operation],
      bars: all.map(({ name, seconds, runs }) => ({
        label: name,
        value: seconds,
        runs,
        ...(name === SELF && allowed.length > 0 ? { bar: Math.min(...allowed) } : {}),
      })),
    }
  })
}
