import type { ArrivedRequest, Fault, FaultSchedule } from './fault-proxy.ts'
import { type Random, seededRandom } from './random.ts'

export type FaultName =
  | Exclude<Fault['kind'], 'answer' | 'answer-after' | 'refuse-halfway'>
  | 'status-500'
  | 'status-503'
  | 'refuse-halfway'

/** How often each befalls requests. What stalls costs the client its whole idle time, so it is rarer. */
const WEIGHTS: Record<FaultName, number> = {
  'drop-request': 3,
  'reset-request': 3,
  'stall-request': 1,
  swallow: 1,
  'lose-reply': 5,
  'drop-reply': 3,
  'reset-reply': 3,
  'stall-reply': 1,
  'shorten-reply': 3,
  slow: 2,
  'status-500': 3,
  'status-503': 3,
  'refuse-halfway': 2,
}
export const ALL_FAULTS = Object.keys(WEIGHTS) as FaultName[]

/** A slow body takes up to about this long. */
const SLOW_MS = 400
/** Answers break off after 0 bytes to 2 MiB, small counts as often as large ones. */
const REPLY_BITS_MAX = 21

/** What a request is to the adapter under test. */
export interface RequestKind {
  /** Its name in counts. Faults in a row are counted for each. */
  kind: string
  /** The key it is about, without what changes from run to run, such as a bucket's name; absent where none is told. */
  subject?: string
  /**
   * `begin` opens an upload at the server, `commit` may make an object, `settle` is how the adapter finds out or clears
   * up (stat, delete, cancel), `read` brings an object's bytes and nothing else, `renew` gets a new token, for all that
   * runs.
   */
  role?: 'begin' | 'commit' | 'settle' | 'read' | 'renew'
}

export interface ScheduleOptions {
  seed: number
  /** The share of requests that begin a row of faults, from 0 to 1. */
  rate: number
  /** The chance that a fault is followed by another in its row. Default 0.5. */
  burst?: number
  /** The most faults in a row for one kind of request about one subject. Default 3. */
  maxInARow?: number
  /** Default: all. */
  faults?: readonly FaultName[]
  classify: (request: ArrivedRequest) => RequestKind
  /** Further faults by a request's kind, as likely together as all the others: what only this provider answers. */
  special?: Record<string, readonly Fault[]>
  /** Bodies of the answers 500 and 503. Default empty. */
  refusalBody?: string
}

/**
 * A schedule from a seed: the n-th request of one kind about one subject always meets the same fate, in whichever
 * order requests of several subjects mingle.
 */
export function seededSchedule(options: ScheduleOptions): FaultSchedule {
  const { seed, rate, burst = 0.5, maxInARow = 3, classify } = options
  const lines = new Map<string, { random: Random; row: number }>()
  return (request) => {
    const asked = classify(request)
    const name = `${asked.kind} ${asked.subject ?? ''}`
    const line = lines.get(name) ?? { random: seededRandom(seed, name), row: 0 }
    lines.set(name, line)
    const { random } = line
    const fails = random.chance(line.row === 0 ? rate : burst) && line.row < maxInARow
    line.row = fails ? line.row + 1 : 0
    return fails ? draw(random, request, asked, options) : undefined
  }
}

function draw(random: Random, request: ArrivedRequest, asked: RequestKind, options: ScheduleOptions): Fault {
  const special = options.special?.[asked.kind] ?? []
  if (special.length > 0 && random.chance(0.5)) return random.pick(special)
  const bodyBytes = Number(request.headers['content-length'] ?? 0)
  const weights: Partial<Record<FaultName, number>> = {}
  for (const name of options.faults ?? ALL_FAULTS) weights[name] = WEIGHTS[name]
  // Only of an object's bytes does a client know how many there are to be.
  if (asked.role !== 'read') delete weights['shorten-reply']
  if (bodyBytes === 0) delete weights['refuse-halfway']
  const name = random.weighted(weights)
  const ofRequest = random.int(bodyBytes)
  const ofReply = Math.floor(2 ** (random.next() * REPLY_BITS_MAX)) - 1
  switch (name) {
    case 'drop-request':
    case 'reset-request':
    case 'stall-request':
      return { kind: name, afterBytes: ofRequest }
    case 'drop-reply':
    case 'reset-reply':
    case 'stall-reply':
    case 'shorten-reply':
      return { kind: name, afterBytes: ofReply }
    case 'slow':
      return { kind: name, bytesPerSecond: ((Math.max(bodyBytes, 64 * 1024) * 1000) / SLOW_MS) * (1 + random.next()) }
    case 'status-500':
      return { kind: 'answer', status: 500, body: options.refusalBody ?? '' }
    case 'status-503':
      return { kind: 'answer', status: 503, headers: { 'retry-after': '0' }, body: options.refusalBody ?? '' }
    case 'refuse-halfway':
      return { kind: name, status: 503, headers: { 'retry-after': '0' } }
    default:
      return { kind: name }
  }
}

/** `MILLRACE_FAULT_SEED`, where it is set, in place of a test's own seeds: repeats one run. */
export function faultSeeds(...defaults: number[]): number[] {
  const { MILLRACE_FAULT_SEED: wanted } = process.env
  return wanted === undefined ? defaults : wanted.split(',').map(Number)
}
