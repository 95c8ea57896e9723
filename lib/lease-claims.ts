import { randomBytes } from 'node:crypto'
import { systemClock } from '../adapters/retry.ts'
import type { Storage } from '../adapters/storage.ts'
import { hasCode, readSmall, readTime, writeSmall } from './small-object.ts'

// What a lease is in the store, beneath <server>/.lease/:
//   <id>.claim  written once: who, since when, and the time to live. The id begins with the claimant's own time.
//   <id>.beat   written again and again by the claimant alone: its state and a counter.
//   <id>.left   written where a claimant may not delete what it has written: its claim counts no more. Its name says it
//               all, as whoever comes after may not read what another account has written.
//   holder      the id of the holder, by a conditional write, where the store has them.

/** Beside the time to live, for requests that are on their way when a holder gives up by its own clock. */
const GRACE = 1.25
/** A claimant that has not decided yet is waited for by all others, so it must not be long dead before they go on. */
const CANDIDATE_TTL_MS = 60_000
/**
 * How long a lease lives without a sign of life, where its holder has not said otherwise: as long as an adapter goes on
 * with a part that does not get through, so that an outage ends both or neither.
 */
export const LEASE_TTL_MS = 10 * 60_000
/** No lease lives longer without a sign of life. */
export const LEASE_TTL_MAX_MS = 86_400_000
const ID = /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z-[0-9a-f]{16}$/
const CLAIM_SUFFIX = '.claim'
const BEAT_SUFFIX = '.beat'
const LEFT_SUFFIX = '.left'
const OWNER_MAX_CHARS = 200
/** Times that the holder's mark may be gone where it was there a moment before: it is set and removed by claimants only. */
const MARK_TRIES = 10

export type ClaimState = 'candidate' | 'held' | 'released'

/** Time for a lease, so that tests can hold it. */
export interface LeaseClock {
  /** Milliseconds that only go forward: what expiry is measured by. */
  now(): number
  /** The time of day in milliseconds: a hint only, nothing is taken over by it. */
  wall(): number
  /** Rejects with AbortError when the signal fires. */
  sleep(ms: number, signal: AbortSignal | undefined): Promise<void>
}

export const leaseClock: LeaseClock = { ...systemClock, wall: () => Date.now() }

/** Of a claim that may not be read here. */
const HIDDEN: ClaimFacts = { owner: 'another account', since: 'an unknown time', ttlMs: LEASE_TTL_MS }

/** What its claimant has written of itself. */
export interface ClaimFacts {
  owner: string
  /** ISO time, by the claimant's clock. */
  since: string
  /** Infinity: not known. */
  ttlMs: number
}

/** Somebody's claim, as far as it has been watched. */
export interface Claim extends ClaimFacts {
  id: string
  state: ClaimState
  /** Whether it was seen to give a sign of life while it was watched. */
  alive: boolean
  /** Whether the store's time of its last sign of life looks recent from here. Clocks differ: a hint. */
  recent: boolean
}

/** What a listing tells of a sign of life. */
interface Listed {
  version: string | undefined
  modified: Date
}

interface Watched {
  facts: ClaimFacts
  beat: string | null
  /** When this beat was first read, by `now`. */
  since: number
  alive: boolean
}

/** How long a claim stands without a sign of life. */
export function ttlOf(state: ClaimState, ttlMs: number): number {
  return state === 'candidate' ? Math.min(ttlMs, CANDIDATE_TTL_MS) : ttlMs
}

/** Whether a key belongs to a claim that is not among `keys`: what a claimant that died while it left has left. */
export function isStrayBeat(key: string, keys: ReadonlySet<string>): boolean {
  const suffix = [BEAT_SUFFIX, LEFT_SUFFIX].find((one) => key.endsWith(one))
  if (suffix === undefined) return false
  const stem = key.slice(0, -suffix.length)
  return ID.test(stem.slice(stem.lastIndexOf('/') + 1)) && !keys.has(stem + CLAIM_SUFFIX)
}

/** The claims to one server's lease, watched by one claimant. */
export class Claims {
  readonly #storage: Storage
  readonly #folder: string
  readonly #clock: LeaseClock
  readonly #watched = new Map<string, Watched>()
  readonly #dead = new Set<string>()

  constructor(storage: Storage, server: string, clock: LeaseClock) {
    this.#storage = storage
    this.#folder = `${server}/.lease/`
    this.#clock = clock
  }

  newId(): string {
    const time = new Date(this.#clock.wall()).toISOString().replaceAll(':', '-')
    return `${time}-${randomBytes(8).toString('hex')}`
  }

  async make(id: string, facts: ClaimFacts, signal: AbortSignal | undefined): Promise<void> {
    await writeSmall(this.#storage, this.#claim(id), `${JSON.stringify({ v: 1, ...facts })}\n`, { signal })
  }

  /** Always of one length, so that a reader never asks for more than a newer one has. */
  async beat(id: string, state: ClaimState, count: number, signal: AbortSignal | undefined): Promise<void> {
    const text = `${state.padEnd(10)}${String(count).padStart(12, '0')}\n`
    await writeSmall(this.#storage, this.#beat(id), text, { signal })
  }

  /** Whether a claim is still there, and with it the holder's mark if it set that. */
  async stands(id: string, marked: boolean, signal: AbortSignal | undefined): Promise<boolean> {
    if (!(await this.#facts(id, signal))) return false
    return !marked || (await this.#holder(signal)) === id
  }

  /**
   * All living claims but one's own, the oldest first. A claim is dead when its beat was seen unchanged for its time to
   * live and a quarter, by the clock here: the clocks of claimants and of the store are never compared for that.
   */
  async look(own: string | undefined, signal: AbortSignal | undefined): Promise<Claim[]> {
    const ids: string[] = []
    const beats = new Map<string, Listed>()
    for await (const { key, version, modified } of this.#storage.list(this.#folder, { signal })) {
      const base = key.slice(this.#folder.length)
      const dot = base.lastIndexOf('.')
      const [id, suffix] = [base.slice(0, dot), base.slice(dot)]
      if (!ID.test(id) || id === own) continue
      if (suffix === CLAIM_SUFFIX) ids.push(id)
      else if (suffix === BEAT_SUFFIX) beats.set(id, { version, modified })
      else if (suffix === LEFT_SUFFIX) this.#dead.add(id)
    }
    for (const id of this.#watched.keys()) if (!ids.includes(id)) this.#watched.delete(id)
    const claims: Claim[] = []
    for (const id of ids.sort()) {
      const claim = this.#dead.has(id) ? undefined : await this.#watch(id, beats.get(id), signal)
      if (claim) claims.push(claim)
    }
    return claims
  }

  /** Takes a claim for dead, whatever it says. */
  bury(id: string): void {
    this.#dead.add(id)
  }

  /** Removes the claims that were found dead. */
  async removeDead(signal: AbortSignal | undefined): Promise<void> {
    for (const id of this.#dead) await this.remove(id, signal)
  }

  /** The claim before its beat: without the claim nobody looks for the beat. */
  async remove(id: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#storage.delete(this.#claim(id), { signal })
    await this.#storage.delete(this.#beat(id), { signal })
    if (this.#dead.has(id)) await this.#storage.delete(this.#left(id), { signal })
  }

  /** Says that a claim counts no more, where it cannot be removed. */
  async leave(id: string, signal: AbortSignal | undefined): Promise<void> {
    await writeSmall(this.#storage, this.#left(id), 'left\n', { signal })
  }

  /**
   * Sets the holder's mark, where the store has conditional writes: then two that were both let in by a listing that
   * lagged are told apart.
   * @returns whether it was set; false: the store cannot. null: a living claim has it.
   * @throws StorageError CONFLICT where what stands in its place can neither be read nor removed.
   */
  async mark(id: string, signal: AbortSignal | undefined): Promise<boolean | null> {
    if (!this.#storage.conditionalWrites) return false
    for (let tries = 1; ; tries++) {
      try {
        await writeSmall(this.#storage, this.#mark, id, { signal, ifAbsent: true })
        return true
      } catch (error) {
        // A file system without hard links, for one.
        if (hasCode(error, 'INVALID')) return false
        // A folder or a pipe of its name is none when it is read, and stays there.
        if (!hasCode(error, 'CONFLICT') || tries === MARK_TRIES) throw error
      }
      const holder = await this.#holder(signal)
      if (holder === id) return true
      if (holder === null) continue
      // One that hides its name has no living claim that the listing shows; should it live, it loses the lease now.
      if (holder !== '' && !this.#dead.has(holder) && (await this.#facts(holder, signal))) return null
      await this.#storage.delete(this.#mark, { signal })
    }
  }

  async unmark(id: string, signal: AbortSignal | undefined): Promise<void> {
    if ((await this.#holder(signal)) === id) await this.#storage.delete(this.#mark, { signal })
  }

  async #watch(id: string, listed: Listed | undefined, signal: AbortSignal | undefined): Promise<Claim | undefined> {
    const before = this.#clock.now()
    const known = this.#watched.get(id)
    const facts = known?.facts ?? (await this.#facts(id, signal))
    if (!facts) return undefined
    const hidden = facts === HIDDEN
    // Each sign of life is another version at another time, which the listing tells also of what may not be read.
    const beat = hidden
      ? `${listed?.version} ${listed?.modified.getTime()}`
      : await readSmall(this.#storage, this.#beat(id), { signal })
    const state = hidden ? 'held' : stateOf(beat)
    const limit = ttlOf(state, facts.ttlMs) * GRACE
    const isSame = known !== undefined && known.beat === beat
    if (state === 'released' || (isSame && before - known.since > limit)) {
      this.#dead.add(id)
      return undefined
    }
    const since = isSame ? known.since : this.#clock.now()
    const alive = known !== undefined && (known.alive || !isSame)
    this.#watched.set(id, { facts, beat, since, alive })
    // Asked for only where it decides something: whether a holder that was never seen before may be refused to at once.
    const isAsked = state === 'held' && !alive && !hidden
    const time = isAsked ? await readTime(this.#storage, this.#beat(id), { signal }) : (listed?.modified ?? null)
    const recent = time !== null && Math.abs(this.#clock.wall() - time.getTime()) <= limit
    return { id, ...facts, state, alive, recent }
  }

  async #facts(id: string, signal: AbortSignal | undefined): Promise<ClaimFacts | null> {
    try {
      const text = await readSmall(this.#storage, this.#claim(id), { signal })
      return text === null ? null : parseFacts(text)
    } catch (error) {
      // In a bucket that several accounts write to, an object can be its writer's alone.
      if (hasCode(error, 'ACCESS_DENIED')) return HIDDEN
      throw error
    }
  }

  /**
   * @returns whose the mark is; empty where it is another account's and may not be read, or is no mark of a claimant;
   * null where there is none.
   */
  async #holder(signal: AbortSignal | undefined): Promise<string | null> {
    try {
      return await readSmall(this.#storage, this.#mark, { signal, tooLong: '' })
    } catch (error) {
      if (hasCode(error, 'ACCESS_DENIED')) return ''
      throw error
    }
  }

  #claim(id: string): string {
    return this.#folder + id + CLAIM_SUFFIX
  }

  #beat(id: string): string {
    return this.#folder + id + BEAT_SUFFIX
  }

  #left(id: string): string {
    return this.#folder + id + LEFT_SUFFIX
  }

  get #mark(): string {
    return `${this.#folder}holder`
  }
}

/** Without a beat it has not decided: the claim is there before its first beat. */
function stateOf(beat: string | null): ClaimState {
  const word = beat?.slice(0, 10).trimEnd()
  return word === 'held' || word === 'released' ? word : 'candidate'
}

/** What cannot be read stands for the longest time: it is somebody's all the same. */
function parseFacts(text: string): ClaimFacts {
  let found: Partial<Record<keyof ClaimFacts, unknown>> = {}
  try {
    found = Object(JSON.parse(text))
  } catch {}
  const { owner, since, ttlMs } = found
  return {
    owner: typeof owner === 'string' ? owner.slice(0, OWNER_MAX_CHARS) : 'unknown',
    since: typeof since === 'string' && !Number.isNaN(Date.parse(since)) ? since : 'an unknown time',
    ttlMs: typeof ttlMs === 'number' && ttlMs > 0 ? Math.min(ttlMs, LEASE_TTL_MAX_MS) : LEASE_TTL_MAX_MS,
  }
}
