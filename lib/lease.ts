import { hostname } from 'node:os'
import { StorageError } from '../adapters/errors.ts'
import { isAbort } from '../adapters/retry.ts'
import type { Storage } from '../adapters/storage.ts'
import { BackupError } from './errors.ts'
import {
  type Claim,
  type ClaimState,
  Claims,
  LEASE_TTL_MAX_MS,
  LEASE_TTL_MS,
  type LeaseClock,
  leaseClock,
  ttlOf,
} from './lease-claims.ts'
import { checkServer } from './names.ts'

export { LEASE_TTL_MS }

/** How far a listing may lag behind a write where the store says nothing of its consistency. */
const SETTLE_MS = 2_000
const BEATS_PER_TTL = 3
const FAILED_BEATS_PER_TTL = 12
const POLL_MAX_MS = 5_000
const POLL_MIN_MS = 20
const LOSSES_MAX = 3
/** What a release may take. What it could not remove expires. */
const RELEASE_MS = 10_000

/** How a lease is taken. */
export interface LeaseOptions {
  /** How long a holder that gives no sign of life keeps the lease, at least. 10 minutes when left out. */
  ttlMs?: number | undefined
  /** Who it is, for those who are refused; the host's name and the process id when left out. No secret. */
  owner?: string | undefined
  /** How long to wait for a living holder to end; 0 when left out. */
  waitMs?: number | undefined
  /** Claims of processes that are known to be gone, by the `id` of their lease: they are not waited for. */
  dead?: readonly string[] | undefined
  /** Take the lease from whoever holds it. For when that one is known to be gone: else two are at work for a while. */
  steal?: boolean | undefined
  /**
   * How long a written claim may take to appear in a listing. 0 when left out on a store with conditional writes, which
   * decide as well; 2 seconds on others.
   */
  settleMs?: number | undefined
  /** Told the `id` of each claim before it is made, and waited for. */
  onClaim?: ((id: string) => Promise<void>) | undefined
  /** Told once of each claim that is being waited for. */
  onWait?: ((claim: { owner: string; since: string; ttlMs: number }) => void) | undefined
  /** Ends the waiting. The lease itself is ended by `release` alone. */
  signal?: AbortSignal | undefined
  clock?: LeaseClock | undefined
}

/** The right to work on a server's snapshots in one store, until it is released or lost. */
export interface Lease {
  /** Names this claim among all: for `dead`, should its process be gone one day. */
  readonly id: string
  /** Fires when the lease is no longer held: the store could not be reached for its time to live, or it was taken. */
  readonly lost: AbortSignal
  /** Asks the store once more. @throws BackupError LEASE_LOST; StorageError. */
  confirm(): Promise<void>
  /** Gives it back. Never rejects: what cannot be removed expires by itself. */
  release(): Promise<void>
}

/**
 * Takes the lease of one server: whoever has it is the only one at work on that server in that store.
 *
 * Each claimant writes a claim of its own, then lists them all; it has the lease when there is no other. An older
 * claim makes a younger one withdraw, and a younger one is waited for, until it has withdrawn or was there first: so
 * of several at once exactly one gets it. On a store with conditional writes it must set the holder's mark as well.
 * Assumed is that a listing shows what was written `settleMs` before, that reading by key is up to date, that clocks
 * run equally fast (what they show does not matter), and that a request takes effect within a quarter of the time to
 * live or never.
 *
 * A holder renews its sign of life three times in its time to live. One that has died is found out by watching that
 * sign for its time to live and a quarter, and its lease is taken over; so a claimant that finds a lease which does not
 * look recent waits that long before it goes on or is refused.
 * @param storage any; writing, listing, reading and deleting is needed beneath `<server>/.lease/`.
 * @throws BackupError LEASE_HELD when another one holds it; USAGE for bad options; StorageError; AbortError.
 */
export async function acquireLease(storage: Storage, server: string, options: LeaseOptions = {}): Promise<Lease> {
  checkServer(server)
  const { ttlMs = LEASE_TTL_MS, waitMs = 0, settleMs = 0 } = options
  if (!(ttlMs > 0 && ttlMs <= LEASE_TTL_MAX_MS && waitMs >= 0 && settleMs >= 0)) {
    throw new BackupError(
      'USAGE',
      'A lease lives for more than 0 ms and at most a day, and is waited for and settles for 0 ms or more.',
    )
  }
  return new Claimant(storage, server, ttlMs, waitMs, options).win()
}

class Claimant {
  readonly #server: string
  readonly #claims: Claims
  readonly #options: LeaseOptions
  readonly #clock: LeaseClock
  readonly #ttlMs: number
  readonly #settleMs: number
  readonly #pollMs: number
  readonly #deadline: number
  readonly #told = new Set<string>()

  constructor(storage: Storage, server: string, ttlMs: number, waitMs: number, options: LeaseOptions) {
    this.#server = server
    this.#clock = options.clock ?? leaseClock
    this.#claims = new Claims(storage, server, this.#clock)
    this.#options = options
    for (const id of options.dead ?? []) this.#claims.bury(id)
    this.#ttlMs = ttlMs
    this.#settleMs = options.settleMs ?? (storage.conditionalWrites ? 0 : SETTLE_MS)
    this.#pollMs = Math.max(POLL_MIN_MS, Math.min(POLL_MAX_MS, ttlMs / 10))
    this.#deadline = this.#clock.now() + waitMs
  }

  async win(): Promise<Lease> {
    let losses = 0
    for (let attempt = 0; ; attempt++) {
      await this.#untilFree()
      const holding = new Holding(this.#claims, this.#server, this.#ttlMs, this.#clock)
      let won = false
      await this.#options.onClaim?.(holding.id)
      try {
        await holding.claim(this.#options.owner ?? `${hostname()} (process ${process.pid})`, this.#options.signal)
        won = await this.#contend(holding)
      } finally {
        if (!won) await holding.release()
      }
      if (won) {
        // They are in nobody's way.
        await this.#claims.removeDead(this.#options.signal).catch(() => {})
        return holding
      }
      // Once it may have been asleep; a store that loses what is written would go on for ever.
      if (holding.lost.aborted && ++losses >= LOSSES_MAX) throw holding.lost.reason
      await this.#pause(attempt)
    }
  }

  /** Nothing is written while another one plainly has it. */
  async #untilFree(): Promise<void> {
    const { signal, steal } = this.#options
    for (let attempt = 0; ; attempt++) {
      const others = await this.#claims.look(undefined, signal)
      if (others.length === 0) return
      const holder = others.find(({ state }) => state === 'held')
      if (holder && steal) {
        this.#claims.bury(holder.id)
        continue
      }
      // Where it does not look recent it may be dead, and only watching it tells.
      if (holder && this.#clock.now() >= this.#deadline && (holder.recent || holder.alive)) throw this.#held(holder)
      if (holder) this.#tell(holder)
      // Candidates decide within some requests.
      await this.#pause(holder ? Number.POSITIVE_INFINITY : attempt)
    }
  }

  /** @returns whether the lease is ours now. */
  async #contend(holding: Holding): Promise<boolean> {
    const { signal } = this.#options
    if (this.#settleMs > 0) await this.#clock.sleep(this.#settleMs, signal)
    for (let attempt = 0; ; attempt++) {
      if (holding.lost.aborted) return false
      const others = await this.#claims.look(holding.id, signal)
      if (others.length === 0) break
      if (others.some(({ id, state }) => state === 'held' || id < holding.id)) return false
      // It may have looked before our claim was there: then it goes ahead, else it withdraws.
      await this.#pause(attempt)
    }
    return holding.hold(signal)
  }

  #pause(attempt: number): Promise<void> {
    const ms = Math.min(this.#pollMs, POLL_MIN_MS * 2 ** attempt)
    return this.#clock.sleep(ms * (0.5 + Math.random() / 2), this.#options.signal)
  }

  #tell({ id, owner, since, ttlMs }: Claim): void {
    if (this.#told.has(id)) return
    this.#told.add(id)
    this.#options.onWait?.({ owner, since, ttlMs })
  }

  #held({ owner, since, ttlMs }: Claim): BackupError {
    const ends =
      ttlMs === Number.POSITIVE_INFINITY
        ? 'take its lease with --steal'
        : `it is taken over after ${Math.ceil(ttlMs / 60_000)} minutes without a sign of life, or at once with --steal`
    return new BackupError(
      'LEASE_HELD',
      `Another run is at work on ${this.#server}: ${owner}, since ${since}. Wait for it (--wait 30m); if it has died, ${ends}.`,
    )
  }
}

class Holding implements Lease {
  readonly id: string
  readonly #claims: Claims
  readonly #server: string
  readonly #ttlMs: number
  readonly #clock: LeaseClock
  readonly #lost = new AbortController()
  readonly #stop = new AbortController()
  #state: ClaimState = 'candidate'
  #marked = false
  #count = 0
  /** When the last sign of life that got through was begun. */
  #good: number
  #tail: Promise<unknown> = Promise.resolve()
  #released: Promise<void> | undefined

  constructor(claims: Claims, server: string, ttlMs: number, clock: LeaseClock) {
    this.id = claims.newId()
    this.#claims = claims
    this.#server = server
    this.#ttlMs = ttlMs
    this.#clock = clock
    this.#good = clock.now()
  }

  get lost(): AbortSignal {
    return this.#lost.signal
  }

  async claim(owner: string, signal: AbortSignal | undefined): Promise<void> {
    const since = new Date(this.#clock.wall()).toISOString()
    this.#good = this.#clock.now()
    await this.#claims.make(this.id, { owner, since, ttlMs: this.#ttlMs }, signal)
    await this.#claims.beat(this.id, this.#state, this.#count, signal)
    void this.#pulse()
    void this.#expire()
  }

  /** @returns whether it is held now; false: another one was first. */
  async hold(signal: AbortSignal | undefined): Promise<boolean> {
    const marked = await this.#claims.mark(this.id, signal)
    if (marked === null) return false
    this.#marked = marked
    this.#state = 'held'
    try {
      await this.#beat()
      return true
    } catch (error) {
      if (this.lost.aborted) return false
      throw error
    }
  }

  async confirm(): Promise<void> {
    for (;;) {
      try {
        await this.#beat()
        return
      } catch (error) {
        this.lost.throwIfAborted()
        if (!(error instanceof StorageError && error.retryable)) throw error
      }
      await this.#clock.sleep(this.#ttl / FAILED_BEATS_PER_TTL, this.lost).catch(() => this.lost.throwIfAborted())
    }
  }

  release(): Promise<void> {
    this.#released ??= this.#release()
    return this.#released
  }

  get #ttl(): number {
    return ttlOf(this.#state, this.#ttlMs)
  }

  async #release(): Promise<void> {
    this.#stop.abort()
    await this.#tail
    const signal = AbortSignal.timeout(RELEASE_MS)
    try {
      if (this.#marked && !this.lost.aborted) await this.#claims.unmark(this.id, signal)
      await this.#claims.remove(this.id, signal)
    } catch {
      // Where deleting is refused, saying so is as good for those who come after, also those who may not read it. What
      // nobody answered has used up all of its time, and this has its own.
      const more = AbortSignal.timeout(RELEASE_MS)
      await this.#claims.beat(this.id, 'released', this.#count, more).catch(() => {})
      await this.#claims.leave(this.id, more).catch(() => {})
    }
  }

  /** One at a time: an older sign of life must not replace a newer one. */
  #beat(): Promise<void> {
    const beat = this.#tail.then(() => this.#beatOnce())
    this.#tail = beat.catch(() => {})
    return beat
  }

  async #beatOnce(): Promise<void> {
    this.lost.throwIfAborted()
    const { signal } = this.#stop
    const begun = this.#clock.now()
    this.#count += 1
    await this.#claims.beat(this.id, this.#state, this.#count, signal)
    if (!(await this.#claims.stands(this.id, this.#marked, signal))) this.#lose('it was taken over by another run')
    this.lost.throwIfAborted()
    this.#good = begun
  }

  async #pulse(): Promise<void> {
    let perTtl = BEATS_PER_TTL
    while (await this.#slept(this.#ttl / perTtl)) {
      perTtl = await this.#beat().then(
        () => BEATS_PER_TTL,
        () => FAILED_BEATS_PER_TTL,
      )
    }
  }

  /** By the time alone: a sign of life that is under way may hang. */
  async #expire(): Promise<void> {
    for (;;) {
      const left = this.#good + this.#ttl - this.#clock.now()
      if (left <= 0) {
        this.#lose(`the store did not take a sign of life for ${Math.round(this.#ttl / 1000)} seconds`)
        return
      }
      if (!(await this.#slept(left))) return
    }
  }

  /** @returns false when the lease was given back or lost meanwhile. */
  async #slept(ms: number): Promise<boolean> {
    try {
      await this.#clock.sleep(ms, this.#stop.signal)
      return !this.#stop.signal.aborted
    } catch (error) {
      if (isAbort(error)) return false
      throw error
    }
  }

  #lose(why: string): void {
    if (this.#stop.signal.aborted) return
    const message = `The lease of ${this.#server} was lost: ${why}. The run was ended before its commit; run it again.`
    this.#lost.abort(new BackupError('LEASE_LOST', message))
    this.#stop.abort()
  }
}
