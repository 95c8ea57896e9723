import { randomBytes } from 'node:crypto'
import { systemClock } from '../adapters/retry.ts'
import type { Storage } from '../adapters/storage.ts'
import { hasCode, readSmall, readTime, writeSmall } from './small-object.ts'

// What a lease is in the store, beneath <server>/.lease/:
//   <id>.claim  written once: who, since when, and the time to live. The id begins with the claimant's own time.
//   <id>.beat   written again and again by the claimant alone: its state and a counter.
//   holder      the id of the holder, by a conditional write, where the store has them.

/** Beside the time to live, for requests that are on their way when a holder gives up by its own clock. */
const GRACE = 1.25
/** A claimant that has not decided yet is waited for by all others, so it must not be long dead before they go on. */
const CANDIDATE_TTL_MS = 60_000
/** No lease lives longer without a sign of life. */
export const LEASE_TTL_MAX_MS = 86_400_000
const ID = /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z-[0-9a-f]{16}$/
const CLAIM_SUFFIX = '.claim'
const BEAT_SUFFIX = '.beat'
const OWNER_MAX_CHARS = 200
/** Of a claim that another account has written and we may not read: nothing tells when it is dead. */
const UNREADABLE: ClaimFacts = {
  owner: 'someone whose claim may not be read with this key',
  since: 'an unknown time',
  ttlMs: Number.POSITIVE_INFINITY,
}

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

/** Whether a key is of a sign of life whose claim is not among `keys`: what a claimant that died while it left has left. */
export function isStrayBeat(key: string, keys: ReadonlySet<string>): boolean {
  if (!key.endsWith(BEAT_SUFFIX)) return false
  const stem = key.slice(0, -BEAT_SUFFIX.length)
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
    for await (const { key } of this.#storage.list(this.#folder, { signal })) {
      const base = key.slice(this.#folder.length)
      if (!base.endsWith(CLAIM_SUFFIX)) continue
      const id = base.slice(0, -CLAIM_SUFFIX.length)
      if (ID.test(id) && id !== own) ids.push(id)
    }
    for (const id of this.#watched.keys()) if (!ids.includes(id)) this.#watched.delete(id)
    const claims: Claim[] = []
    for (const id of ids.sort()) {
      const claim = this.#dead.has(id) ? undefined : await this.#watch(id, signal)
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
  }

  /**
   * Sets the holder's mark, where the store has conditional writes: then two that were both let in by a listing that
   * lagged are told apart.
   * @returns whether it was set; false: the store cannot. null: a living claim has it.
   */
  async mark(id: string, signal: AbortSignal | undefined): Promise<boolean | null> {
    if (!this.#storage.conditionalWrites) return false
    for (;;) {
      try {
        await writeSmall(this.#storage, this.#mark, id, { signal, ifAbsent: true })
        return true
      } catch (error) {
        // A file system without hard links, for one.
        if (hasCode(error, 'INVALID')) return false
        if (!hasCode(error, 'CONFLICT')) throw error
      }
      const holder = await this.#holder(signal)
      if (holder === id) return true
      if (holder === null) continue
      // Of one that may not be read it is not known whose it is; nobody else who lives was found in the listing.
      if (holder !== undefined && !this.#dead.has(holder) && (await this.#facts(holder, signal))) return null
      await this.#storage.delete(this.#mark, { signal })
    }
  }

  async unmark(id: string, signal: AbortSignal | undefined): Promise<void> {
    if ((await this.#holder(signal)) === id) await this.#storage.delete(this.#mark, { signal })
  }

  async #watch(id: string, signal: AbortSignal | undefined): Promise<Claim | undefined> {
    const before = this.#clock.now()
    const known = this.#watched.get(id)
    const facts = known?.facts ?? (await this.#facts(id, signal))
    if (!facts) return undefined
    if (facts === UNREADABLE) return { id, ...facts, state: 'held', alive: true, recent: true }
    const beat = await readSmall(this.#storage, this.#beat(id), { signal })
    const state = stateOf(beat)
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
    const time = state === 'held' && !alive ? await readTime(this.#storage, this.#beat(id), { signal }) : null
    const recent = time !== null && Math.abs(this.#clock.wall() - time.getTime()) <= limit
    return { id, ...facts, state, alive, recent }
  }

  async #facts(id: string, signal: AbortSignal | undefined): Promise<ClaimFacts | null> {
    const text = await this.#read(this.#claim(id), signal)
    if (text === undefined) return UNREADABLE
    return text === null ? null : parseFacts(text)
  }

  /** @returns undefined: it may not be read. null: there is none. */
  #holder(signal: AbortSignal | undefined): Promise<string | null | undefined> {
    return this.#read(this.#mark, signal)
  }

  /**
   * @returns undefined for what another account has written and this one may not read, as a bucket's owner may not where
   * the writer's object is private.
   */
  async #read(key: string, signal: AbortSignal | undefined): Promise<string | null | undefined> {
    try {
      return await readSmall(this.#storage, key, { signal })
    } catch (error) {
      if (hasCode(error, 'ACCESS_DENIED')) return undefined
      throw error
    }
  }

  #claim(id: string): string {
    return this.#folder + id + CLAIM_SUFFIX
  }

  #beat(id: string): string {
    return this.#folder + id + BEAT_SUFFIX
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
