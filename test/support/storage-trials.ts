import assert from 'node:assert/strict'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { type ArrivedRequest, type Fault, type FaultProxy, openFaultProxy, type SeenRequest } from './fault-proxy.ts'
import { type FaultName, type RequestKind, seededSchedule } from './fault-schedule.ts'
import { seededBytes, seededRandom } from './random.ts'
import { planDownload, storeObjects, tryDownload } from './trial-downloads.ts'
import { planUpload, tryUpload } from './trial-uploads.ts'

/** One run of {@link runTrials}. Everything random in it comes from `seed`. */
export interface TrialOptions {
  /** For the line of counts: the adapter and the server. */
  name: string
  seed: number
  /** Uploads and downloads in all, in a random order. */
  uploads: number
  downloads: number
  /** How many run at a time. */
  concurrency: number
  /** The server's own URL. */
  endpoint: string
  /**
   * Opens the adapter at an endpoint: the proxy's, for the trials, and the server's, for looking at the results. Make
   * its retries quick (a few attempts, waits of milliseconds) and its idle time short (1 or 2 s), or a run takes long.
   */
  open(endpoint: string): Promise<Storage>
  /** Uploads at the server that were begun and neither committed nor cancelled, asked for past the proxy. */
  pendingUploads(): Promise<number>
  /** From where on the adapter sends parts; sizes lie around it. */
  partBytes: number
  /** How often the adapter, as opened here, tries a request that settles something; see {@link couldNotSettle}. */
  attempts?: number
  /** The share of uploads that are larger than a part. Default 0.35. */
  multipartShare?: number
  /** What a request is to the adapter; see {@link RequestKind}. The rules of what may be left behind stand on it. */
  classify: (request: ArrivedRequest) => RequestKind
  /** The share of requests that begin a row of faults. Default 0.12, which makes about a fifth of them fail. */
  rate?: number
  /** Default: all. */
  faults?: readonly FaultName[]
  /** Further faults by a request's kind: what only this provider answers. */
  special?: Record<string, readonly Fault[]>
  /** The body of answers 500 and 503. */
  refusalBody?: string
  /** The adapter's idle time, after which it takes a request for lost. */
  idleMs: number
  /** A trial that takes longer hangs. Default 120 s. */
  deadlineMs?: number
}

/** What became of a run, in counts. */
export interface TrialReport {
  /** Uploads and downloads by outcome: `committed`, `aborted`, `failed UNAVAILABLE`, `unknown`, `read` … */
  uploads: Record<string, number>
  downloads: Record<string, number>
  /** Of the uploads, those larger than a part. */
  multipart: number
  /** Requests in all, and those that met a fault, by its kind. */
  requests: number
  faults: Record<string, number>
  /** All of it in one line. */
  line: string
}

/** What a trial has at hand. */
export interface TrialContext {
  /** Through the proxy. */
  storage: Storage
  /** At the server. */
  direct: Storage
  partBytes: number
  idleMs: number
  attempts?: number | undefined
  /** The log of the proxy about one key, from the moment that this is called. */
  follow(key: string): () => LoggedRequest[]
}

export type LoggedRequest = SeenRequest & RequestKind

/** What a trial found: its outcome's name, and how many uploads may be pending because of it. */
export interface TrialResult {
  outcome: string
  mayPend?: number
}

const KEYS = 'trials'

/**
 * Holds an adapter to its guarantees while a seeded share of its requests fail.
 *
 * Random uploads and downloads go through a fault proxy, several at a time. Each upload must end in a deadline, either
 * committed, with the right bytes when they are read at the server itself, or failed with a StorageError or AbortError,
 * and then nothing of it is left: no object, the old one intact, no pending upload. Each download gives the right bytes
 * or an error.
 *
 * Three things no client can help, and they are counted apart, each allowed only where the proxy's log proves it:
 * - `unknown`: an object or an upload is left, after the last requests that should have cleared up all met faults, or
 *   could not be made as no token was to be had for them, or as the server was still at work on it when the adapter
 *   had waited for its whole idle time;
 * - `replaced`: the old object is gone, as a commit had reached the server before the write failed and was undone;
 * - a pending upload of a `begin` that reached the server and whose answer was lost.
 *
 * The proofs go by the subjects that `classify` gives. Where a request does not tell its key, it counts for every trial
 * that runs meanwhile: then let one run at a time, or tell the key by what the request has (an upload's id that an
 * earlier answer gave).
 *
 * @returns the counts, after printing them with the seed. `MILLRACE_FAULT_SEED` repeats a run where its test takes
 * seeds from `faultSeeds`.
 * @throws AssertionError that names each trial that broke a guarantee, with what it was.
 *
 * @example
 * for (const seed of faultSeeds(1, 2, 3)) {
 *   it(`seed ${seed}`, () => runTrials({ name: 'drive', seed, uploads: 100, downloads: 100, concurrency: 8,
 *     endpoint: fake.url, open: (endpoint) => openDrive({ ...settings, endpoint }),
 *     pendingUploads: async () => fake.sessions.size, partBytes: 256 * 1024, idleMs: 2000, classify }))
 * }
 */
export async function runTrials(options: TrialOptions): Promise<TrialReport> {
  const { seed, partBytes, concurrency, deadlineMs = 120_000, classify } = options
  const { rate = 0.12, multipartShare = 0.35 } = options
  const proxy = await openFaultProxy(options.endpoint, { hashBodies: false })
  const storage = await options.open(proxy.endpoint)
  const direct = await options.open(options.endpoint)
  const uploads: Record<string, number> = {}
  const downloads: Record<string, number> = {}
  const broken: string[] = []
  let mayPend = 0
  let multipart = 0
  try {
    assert.equal(await options.pendingUploads(), 0, 'uploads are pending before the first trial')
    const prefix = `${KEYS}/${seed}`
    const bytes = seededBytes(4 * partBytes, seed)
    const objects = await storeObjects(direct, `${prefix}/objects/`, bytes, partBytes)
    proxy.follow(seededSchedule({ ...options, rate }))
    const context: TrialContext = {
      storage,
      direct,
      partBytes,
      attempts: options.attempts,
      idleMs: options.idleMs,
      follow(key) {
        const from = proxy.arrived
        return () => logOf(proxy, classify, key, from)
      },
    }

    const tasks: (() => Promise<void>)[] = []
    const add = (
      counts: Record<string, number>,
      plan: { name: string; key: string },
      attempt: () => Promise<TrialResult>,
    ) => {
      tasks.push(async () => {
        const logged = context.follow(plan.key)
        try {
          const result = await within(deadlineMs, attempt())
          counts[result.outcome] = (counts[result.outcome] ?? 0) + 1
          mayPend += result.mayPend ?? 0
        } catch (error) {
          broken.push(`${plan.name}: ${(error as Error).message}\n${tell(logged())}`)
        }
      })
    }
    for (let index = 0; index < options.uploads; index++) {
      const random = seededRandom(seed, 'upload', index)
      const key = `${prefix}/uploads/${index}`
      const plan = planUpload(random, { key, bytes, partBytes, multipartShare, ifAbsent: direct.conditionalWrites })
      add(uploads, plan, () => tryUpload(context, plan))
      if (plan.data.length > partBytes) multipart++
    }
    for (let index = 0; index < options.downloads; index++) {
      const random = seededRandom(seed, 'download', index)
      const plan = planDownload(random, { key: `${prefix}/downloads/${index}`, objects, bytes })
      add(downloads, plan, () => tryDownload(context, plan, objects))
    }
    await runAll(shuffled(tasks, seed), concurrency)

    proxy.follow(undefined)
    await within(deadlineMs, proxy.idle()).catch((error: Error) => {
      const left = proxy.underWay.map((entry) => ({ ...entry, ...classify(entry) }))
      throw new Error(`requests at the server never end: ${error.message}\n${tell(left)}`)
    })
    const log = logOf(proxy, classify, undefined, 0)
    const lostBegins = log.filter(({ role, reached, ...entry }) => role === 'begin' && reached && !isAnswered(entry))
    const pending = await options.pendingUploads()
    if (pending > mayPend + lostBegins.length) {
      const excused = `${lostBegins.length} lost answers to begin and ${mayPend} trials whose clearing up failed`
      broken.push(`${pending} uploads are pending; ${excused} account for fewer`)
    }
    if (direct.purgeUnfinished) {
      await direct.purgeUnfinished(-60_000)
      assert.equal(await options.pendingUploads(), 0, 'uploads are pending after purgeUnfinished')
    }
    await removeAll(direct, `${prefix}/`)

    const report = reportOf(options, { uploads, downloads, multipart, pending }, proxy.seen)
    console.log(report.line)
    if (broken.length > 0) {
      const some = broken.slice(0, 12).map((text) => `  ${text}`)
      const again = `MILLRACE_FAULT_SEED=${seed} repeats it.`
      assert.fail(`${broken.length} trials broke a guarantee. ${again}\n${some.join('\n')}`)
    }
    return report
  } finally {
    await storage.close()
    await direct.close()
    await proxy.close()
  }
}

/** Whether the client got the server's own answer whole. */
export function isAnswered({ answered, fault }: Pick<SeenRequest, 'answered' | 'fault'>): boolean {
  return answered !== undefined && (fault === undefined || fault === 'slow')
}

/**
 * Whether the log proves that the adapter could not clear up: the server took a begin or a commit, and either was at it
 * for longer than the adapter waits for any answer, or the requests of the kind that the adapter tried last to settle
 * with have all met faults since, or it had no token for them and was given none: the last was refused for it, or none
 * was made. An adapter that also makes them for other ends, and had answers then, has used up its `attempts` when as
 * many of the last ones met faults.
 */
export function couldNotSettle(
  log: LoggedRequest[],
  { idleMs, attempts = Infinity }: Pick<TrialContext, 'idleMs' | 'attempts'>,
): boolean {
  const made = log.findLast(({ role, reached }) => (role === 'begin' || role === 'commit') && reached)
  if (!made) return false
  if (made.serverStatus === undefined || (made.serverMs ?? 0) >= idleMs) return true
  const settling = log.filter(({ role, index }) => role === 'settle' && index > made.index)
  // One that broke off before it told its key is this trial's or another's: with them, and without them.
  const own = settling.filter(({ subject }) => subject !== undefined)
  const readings = [settling, own].map((requests) => requests.filter(({ answered }) => answered !== REFUSED_TOKEN))
  const kinds = new Set(readings.map((requests) => requests.at(-1)?.kind))
  if (readings.some((requests) => [...kinds].some((kind) => isLostTail(requests, kind, attempts)))) return true
  const last = own.at(-1) ?? settling.at(-1)
  // Another's request may have been refused, and the adapter have waited for a new token before it asked at all.
  if (last === undefined) return gotNoToken(log, made.index, attempts)
  return last.answered === REFUSED_TOKEN && gotNoToken(log, last.index, attempts)
}

const REFUSED_TOKEN = 401

/** Whether the last `attempts` requests of a kind, where there are any, were all not answered. */
function isLostTail(requests: LoggedRequest[], kind: string | undefined, attempts: number): boolean {
  const alike = requests.filter((entry) => entry.kind === kind)
  const tail = alike.slice(-Math.min(attempts, alike.length))
  return tail.length > 0 && tail.every((entry) => !isAnswered(entry))
}

/** Whether `attempts` renewals in a row were not answered, the last of which came after a request. */
function gotNoToken(log: LoggedRequest[], after: number, attempts: number): boolean {
  let inARow = 0
  for (const entry of log) {
    if (entry.role !== 'renew') continue
    inARow = isAnswered(entry) ? 0 : inARow + 1
    if (inARow >= attempts && entry.index > after) return true
  }
  return false
}

/** Whether a failure is one that an adapter may report. */
export function isProperError(error: unknown): boolean {
  return error instanceof StorageError || (error instanceof Error && error.name === 'AbortError')
}

function logOf(
  proxy: FaultProxy,
  classify: TrialOptions['classify'],
  key: string | undefined,
  from: number,
): LoggedRequest[] {
  const log: LoggedRequest[] = []
  for (const entry of proxy.seen) {
    const asked = classify(entry)
    // A renewal that was under way when a trial began may be the one that it waited for.
    if (entry.index < from && asked.role !== 'renew') continue
    if (key === undefined || asked.subject === undefined || asked.subject === key) log.push({ ...entry, ...asked })
  }
  return log.sort((a, b) => a.index - b.index)
}

function tell(log: LoggedRequest[]): string {
  const line = ({ kind, fault, bodyBytes, reached, serverStatus, answered }: LoggedRequest) => {
    const server = reached ? `server ${serverStatus ?? 'silent'}` : 'not passed on'
    return `    ${kind}, ${bodyBytes} bytes, ${fault ?? 'no fault'}, ${server}, answered ${answered ?? 'nothing'}`
  }
  return log.map(line).join('\n')
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it hangs: nothing came of it in ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function shuffled<T>(items: T[], seed: number): T[] {
  const random = seededRandom(seed, 'order')
  for (let at = items.length - 1; at > 0; at--) {
    const other = random.int(at + 1)
    const item = items[at]!
    items[at] = items[other]!
    items[other] = item
  }
  return items
}

/** Runs tasks in their order, so many at a time. */
export async function runAll(tasks: (() => Promise<void>)[], concurrency: number): Promise<void> {
  const queue = tasks.values()
  const worker = async () => {
    for (const task of queue) await task()
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
}

async function removeAll(storage: Storage, prefix: string): Promise<void> {
  for await (const { key } of storage.list(prefix)) await storage.delete(key)
}

function reportOf(
  { name, seed }: TrialOptions,
  {
    uploads,
    downloads,
    multipart,
    pending,
  }: Pick<TrialReport, 'uploads' | 'downloads' | 'multipart'> & { pending: number },
  seen: SeenRequest[],
): TrialReport {
  const faults: Record<string, number> = {}
  for (const { fault } of seen) if (fault) faults[fault] = (faults[fault] ?? 0) + 1
  const counts = (of: Record<string, number>) =>
    Object.entries(of)
      .sort(([, a], [, b]) => b - a)
      .map(([what, count]) => `${what} ${count}`)
      .join(', ')
  const faulted = Object.values(faults).reduce((sum, count) => sum + count, 0)
  const met = `${seen.length} requests, ${faulted} faults (${counts(faults)})`
  const trials = `uploads: ${counts(uploads)} (${multipart} in parts); downloads: ${counts(downloads)}; ${pending} pending`
  const line = `${name}, seed ${seed}: ${trials}; ${met}`
  return { uploads, downloads, multipart, requests: seen.length, faults, line }
}
