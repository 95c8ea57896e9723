import { StorageError } from '../adapters/errors.ts'
import { throwIfAborted } from '../adapters/retry.ts'
import type { ObjectStat, Storage } from '../adapters/storage.ts'
import type { Progress } from '../transforms/index.ts'
import { type ListedSnapshot, type Survey, surveyStore } from './catalog.ts'
import { BackupError } from './errors.ts'
import { isStrayBeat } from './lease-claims.ts'
import { isLiveMark, type Mark, parseMark } from './marks.ts'
import { COMPANION_SUFFIX } from './names.ts'
import { type HeldLease, isStillHeld, takeLease } from './prune-lease.ts'
import { markRemoval } from './read-lease.ts'
import { checkPolicy, type Decision, decideRetention, type RetentionPolicy } from './retention.ts'
import { isAbandoned, isLeftover, LEFTOVER_MS, type Sweepable, sightUnfinished } from './sweep.ts'

/** How snapshots are pruned. */
export interface PruneOptions {
  /** Only say what would be done: nothing in the store or the state folder is changed. */
  dryRun?: boolean | undefined
  /**
   * The time to decide at. When left out it is this machine's, and a machine that is more than a day apart from the
   * store is refused before anything is removed.
   */
  now?: Date | undefined
  /** Asked before each removal, beside the read leases in the store: a snapshot in use stays. */
  inUse?: ((id: string) => boolean | Promise<boolean>) | undefined
  /**
   * Takes the server's lease, so that no backup of it runs meanwhile. Unfinished snapshots are swept only under it;
   * without it, or when it throws a BackupError, they are left alone and only older unfinished uploads are cancelled. The
   * same where its `confirm` rejects, which is asked before either is done.
   */
  lease?: (() => Promise<HeldLease>) | undefined
  /** Where sightings of unfinished snapshots are remembered; `~/.local/state/millrace` when left out. */
  stateDir?: string | undefined
  /** Told before the first removal and after each, in bytes as stored. */
  onProgress?: ((progress: PruneProgress) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface PruneProgress extends Progress {
  /** Snapshots that have been dealt with, of those that go. */
  snapshots: { done: number; of: number }
}

/**
 * What became of a snapshot. `planned`: a dry run would have removed it; `in-use`: it was to go, and is being read;
 * `deferred`: a lock of the store refuses its removal for now.
 */
export type PruneOutcome = 'kept' | 'planned' | 'removed' | 'in-use' | 'deferred' | 'failed'

/** One snapshot of a prune, and what became of it. */
export interface PrunedSnapshot extends Decision<ListedSnapshot> {
  outcome: PruneOutcome
}

/** Something that could not be removed. */
export interface PruneProblem {
  key: string
  /** The StorageError's code. */
  code: string
  message: string
  /** Whether it is only a lock, which ends by itself. */
  deferred: boolean
}

/** What a prune did, or would do. */
export interface PruneReport {
  server: string
  dryRun: boolean
  /** Every snapshot of the server, oldest first. */
  snapshots: PrunedSnapshot[]
  /** Bytes as stored of what was removed, or would be. */
  removedBytes: number
  /** Keys of companions without an object that were removed, or would be. */
  orphans: string[]
  /** Keys of pins without a snapshot; they are left. */
  strayPins: string[]
  /** Keys under the server that are nothing of ours; they are left. */
  foreign: string[]
  /** Uploads that were never finished and have been cancelled at the store. */
  cancelledUploads: number
  problems: PruneProblem[]
  /** What was not done, and why. */
  notes: string[]
}

const DELETES_AT_ONCE = 8
/** Without the lease an upload that is old may still be going on: some take days. */
const UNLEASED_UPLOAD_MS = 7 * LEFTOVER_MS
const CLOCKS_APART_MS = LEFTOVER_MS

/**
 * Removes the snapshots of one server that a policy does not keep, each object first and then its companion; also
 * companions without objects that are a day old, unfinished uploads, and unfinished snapshots that are worth nothing.
 * What is removed has to be found twice, in two listings, and marked as being removed in between.
 * @returns what was done; deletes that failed are in `problems`.
 * @throws BackupError USAGE for a policy that `checkPolicy` refuses, CLOCK; StorageError when a listing fails or the
 * mark cannot be written. Nothing has been removed then.
 */
export async function pruneSnapshots(
  { storage, server }: { storage: Storage; server: string },
  policy: RetentionPolicy,
  options: PruneOptions = {},
): Promise<PruneReport> {
  checkPolicy(policy)
  // Of a program without types: left out, it would remove what it was only to show.
  const misspelt = Object.keys(options).find((name) => /^dry/i.test(name) && name !== 'dryRun')
  if (misspelt !== undefined) throw new BackupError('USAGE', `prune has no ${JSON.stringify(misspelt)}. It is dryRun.`)
  const { now = new Date(), signal, lease } = options
  const survey = await surveyStore(storage, server, signal)
  if (options.dryRun) return planPrune({ storage, server }, survey, policy, options)
  const { report, sweepable } = await decide({ storage, server }, survey, policy, now, options)
  const held = await takeLease(lease, report.notes)
  try {
    sweep(report, sweepable, held !== undefined)
    const isHeld = () => isStillHeld(held, report.notes, signal)
    await new Pruning(storage, policy, options, now, report).run(survey, isHeld)
    await cancelUploads(storage, report, isHeld, signal)
  } finally {
    await held?.release()
  }
  return report
}

/**
 * Says what a prune would do, by a listing that is there already. Nothing is asked of the store, and nothing is changed.
 * @param survey of that server alone.
 * @throws BackupError USAGE for a policy that `checkPolicy` refuses.
 */
export async function planPrune(
  of: { storage: Storage; server: string },
  survey: Survey,
  policy: RetentionPolicy,
  options: Pick<PruneOptions, 'now' | 'lease' | 'stateDir'> = {},
): Promise<PruneReport> {
  const { now = new Date(), lease } = options
  const { report, sweepable } = await decide(of, survey, policy, now, { ...options, dryRun: true })
  // A prune asks this of the store's clock; without a mark ours is all there is, as for companions.
  const old = sweepable.filter(({ snapshot }) => isLeftover(snapshot, now))
  sweep(report, old, lease !== undefined)
  report.orphans = survey.orphans.filter((orphan) => isLeftover(orphan, now)).map(({ key }) => key)
  for (const one of report.snapshots) if (one.action === 'remove') settle(report, one, 'planned')
  return report
}

/** @returns what the policy says of each, of which nothing has been done yet, and the unfinished that may be swept. */
async function decide(
  { storage, server }: { storage: Storage; server: string },
  survey: Survey,
  policy: RetentionPolicy,
  now: Date,
  { dryRun = false, stateDir }: PruneOptions,
): Promise<{ report: PruneReport; sweepable: Sweepable[] }> {
  const snapshots = decideRetention(survey.snapshots, policy, now).map((one): PrunedSnapshot => {
    return { ...one, outcome: 'kept' }
  })
  const { strayPins, foreign } = survey
  const report: PruneReport = {
    ...{ server, dryRun, snapshots, removedBytes: 0, orphans: [], strayPins, foreign },
    ...{ cancelledUploads: 0, problems: [], notes: [] },
  }
  return { report, sweepable: await sight(report, { location: storage.location, prefix: `${server}/`, now, stateDir }) }
}

async function sight(report: PruneReport, at: Omit<Parameters<typeof sightUnfinished>[1], 'note'>) {
  try {
    const snapshots = report.snapshots.map(({ snapshot }) => snapshot)
    return await sightUnfinished(snapshots, { ...at, note: !report.dryRun })
  } catch (error) {
    report.notes.push(`Unfinished snapshots are not swept: the state folder fails (${(error as Error).message}).`)
    return []
  }
}

/** An unfinished snapshot is kept by every policy; here it is removed all the same. */
function sweep({ snapshots, notes }: PruneReport, sweepable: readonly Sweepable[], leased: boolean): void {
  if (!leased) {
    if (sweepable.length > 0) notes.push('Unfinished snapshots are swept only under the lease.')
    return
  }
  const reasons = new Map(sweepable.map(({ snapshot, reason }) => [snapshot, reason]))
  for (const one of snapshots) {
    const reason = reasons.get(one.snapshot)
    if (reason !== undefined) Object.assign(one, { action: 'remove', reasons: [reason] })
  }
}

async function cancelUploads(
  storage: Storage,
  report: PruneReport,
  isHeld: () => Promise<boolean>,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!storage.purgeUnfinished) return
  const olderThanMs = (await isHeld()) ? LEFTOVER_MS : UNLEASED_UPLOAD_MS
  const prefix = `${report.server}/`
  try {
    report.cancelledUploads = await storage.purgeUnfinished(olderThanMs, { prefix, signal })
  } catch (error) {
    addProblem(report, prefix, error)
  }
}

/** Notes what became of a snapshot that was to be removed. */
function settle(report: PruneReport, one: PrunedSnapshot, outcome: PruneOutcome): void {
  one.outcome = outcome
  if (outcome === 'removed' || outcome === 'planned') report.removedBytes += one.snapshot.storedBytes
}

/** @returns whether it is only a lock. @throws what is no StorageError, such as an abort. */
function addProblem({ problems }: PruneReport, key: string, error: unknown): boolean {
  if (!(error instanceof StorageError)) throw error
  const deferred = error.code === 'LOCKED'
  problems.push({ key, code: error.code, message: error.message, deferred })
  return deferred
}

/** The part of a prune that changes the store. */
class Pruning {
  readonly #storage: Storage
  readonly #policy: RetentionPolicy
  readonly #options: PruneOptions
  readonly #now: Date
  readonly #report: PruneReport
  #marks: Mark[] = []

  constructor(storage: Storage, policy: RetentionPolicy, options: PruneOptions, now: Date, report: PruneReport) {
    this.#storage = storage
    this.#policy = policy
    this.#options = options
    this.#now = now
    this.#report = report
  }

  /**
   * @param first what the decisions were made of.
   * @param isHeld asked where anything is to be removed that only a prune with the lease removes.
   */
  async run(first: Survey, isHeld: () => Promise<boolean>): Promise<void> {
    const { server, snapshots } = this.#report
    const { signal } = this.#options
    const condemned = snapshots.filter(({ action }) => action === 'remove')
    if (condemned.length + first.orphans.length + leftByTheDead(first, this.#now).length === 0) return
    const ids = condemned.map(({ snapshot }) => snapshot.id)
    this.#marks = await markRemoval(this.#storage, server, ids, signal)
    try {
      const { storeTime } = this.#marks[0] as Mark
      this.#checkClock(storeTime)
      // After the mark is written: whoever begins to read from now on sees it, and whoever began before is listed here.
      const second = await surveyStore(this.#storage, server, signal)
      const mayGo = condemned.every(({ snapshot }) => snapshot.complete) || (await isHeld())
      const going = this.#confirm(condemned, second, storeTime, mayGo)
      const dealtWith = this.#counter(going)
      await this.#each(going, async (one) => {
        await this.#remove(one)
        dealtWith(one)
      })
      await this.#each(second.orphans, (orphan) => this.#removeOrphan(orphan, first, storeTime))
      await this.#each(leftByTheDead(second, storeTime), ({ key }) => this.#removeLeft(key))
    } finally {
      await Promise.all(this.#marks.map((mark) => mark.release()))
    }
  }

  /** @returns what is told of each that has been dealt with. */
  #counter(going: readonly PrunedSnapshot[]): (one: PrunedSnapshot) => void {
    const { onProgress } = this.#options
    if (!onProgress) return () => {}
    const begun = performance.now()
    const totalBytes = going.reduce((sum, { snapshot }) => sum + snapshot.storedBytes, 0)
    let bytes = 0
    let done = 0
    const tell = () => {
      const elapsedMs = performance.now() - begun
      const bytesPerSecond = elapsedMs > 0 ? (bytes * 1000) / elapsedMs : 0
      const etaMs = bytesPerSecond > 0 ? ((totalBytes - bytes) * 1000) / bytesPerSecond : undefined
      onProgress({ bytes, totalBytes, elapsedMs, bytesPerSecond, etaMs, snapshots: { done, of: going.length } })
    }
    tell()
    return ({ snapshot }) => {
      bytes += snapshot.storedBytes
      done += 1
      tell()
    }
  }

  #checkClock(storeTime: Date): void {
    if (this.#options.now !== undefined) return
    const apart = this.#now.getTime() - storeTime.getTime()
    if (Math.abs(apart) <= CLOCKS_APART_MS) return
    throw new BackupError(
      'CLOCK',
      `This machine's clock says ${this.#now.toISOString()} and the store's ${storeTime.toISOString()}: nothing was removed. Set the clock right and prune again.`,
    )
  }

  /** Those that a second look condemns as well, and that nobody reads. */
  #confirm(condemned: readonly PrunedSnapshot[], second: Survey, storeTime: Date, mayGo: boolean): PrunedSnapshot[] {
    const again = new Map(
      decideRetention(second.snapshots, this.#policy, this.#now).map((decision) => [decision.snapshot.key, decision]),
    )
    const read = new Set<string>()
    for (const lease of second.leases) {
      const mark = parseMark(lease.key)
      if (mark?.kind === 'read' && isLiveMark(lease, storeTime)) read.add(mark.id)
    }
    return condemned.filter((one) => {
      const { snapshot } = one
      const found = again.get(snapshot.key)
      const isSame =
        found !== undefined &&
        found.snapshot.version === snapshot.version &&
        found.snapshot.storedBytes === snapshot.storedBytes &&
        found.snapshot.complete === snapshot.complete &&
        (snapshot.complete
          ? found.action === 'remove'
          : mayGo && isAbandoned(found.snapshot, second.snapshots, this.#now, storeTime))
      if (!isSame) one.reasons = ['changed while the prune ran: not touched']
      else if (read.has(snapshot.id)) settle(this.#report, one, 'in-use')
      return isSame && one.outcome !== 'in-use'
    })
  }

  /** Oldest first, several at once: a prune that is cut short leaves the newest. */
  async #each<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
    const queue = items.values()
    let failure: { error: unknown } | undefined
    const work = async () => {
      for (const item of queue) {
        if (failure) return
        try {
          throwIfAborted(this.#options.signal)
          await act(item)
        } catch (error) {
          failure ??= { error }
        }
      }
    }
    // None may go on deleting once the marks are given back.
    await Promise.all(Array.from({ length: DELETES_AT_ONCE }, work))
    if (failure) throw (failure as { error: unknown }).error
  }

  async #remove(one: PrunedSnapshot): Promise<void> {
    const { snapshot } = one
    if (await this.#options.inUse?.(snapshot.id)) {
      settle(this.#report, one, 'in-use')
      return
    }
    const refused = await this.#delete(snapshot.key)
    settle(this.#report, one, refused ?? 'removed')
    if (!refused && snapshot.complete) await this.#delete(snapshot.key + COMPANION_SUFFIX)
  }

  /** What a removal that was cut short has left. */
  async #removeOrphan(orphan: ObjectStat, first: Survey, storeTime: Date): Promise<void> {
    const { key } = orphan
    if (!isLeftover(orphan, storeTime) || !first.orphans.some((one) => one.key === key)) return
    if (!(await this.#delete(key))) this.#report.orphans.push(key)
  }

  /** @returns what kept it from being deleted, or undefined when it is gone. */
  async #delete(key: string): Promise<'deferred' | 'failed' | undefined> {
    try {
      if (!this.#marks.every((mark) => mark.isLive())) {
        throw new StorageError(`The mark of this prune could not be kept up, so ${key} was left.`, {
          ...{ code: 'UNAVAILABLE', adapter: this.#storage.adapter, operation: 'delete', key },
        })
      }
      await this.#storage.delete(key, { signal: this.#options.signal })
      return undefined
    } catch (error) {
      return addProblem(this.#report, key, error) ? 'deferred' : 'failed'
    }
  }

  /** What fails here is no matter: it counts for nothing. */
  async #removeLeft(key: string): Promise<void> {
    await this.#storage.delete(key, { signal: this.#options.signal }).catch(() => {})
  }
}

/** Marks of processes that died, and what is left of their claims. The next claimant removes whole claims itself. */
function leftByTheDead({ leases }: Survey, time: Date): ObjectStat[] {
  const keys = new Set(leases.map(({ key }) => key))
  return leases.filter((lease) => {
    // A dead one that is no leftover yet: dated by a clock that was ahead, it would never become one.
    const isAhead = lease.modified.getTime() > time.getTime()
    if (parseMark(lease.key)) return isLeftover(lease, time) || (isAhead && !isLiveMark(lease, time))
    return isLeftover(lease, time) && isStrayBeat(lease.key, keys)
  })
}
