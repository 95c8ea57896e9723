import { createHash, randomBytes } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Snapshot } from './catalog.ts'
import { makeFolders } from './folders.ts'
import type { Verification } from './verify.ts'

/** What is remembered of a snapshot's last verification. */
export interface Remembered {
  size: number
  version: string | null
  status: Verification['status']
  mode: Verification['mode']
  /** ms since 1970. */
  at: number
  reason?: string
}

interface StateFile {
  v: 1
  store: string
  verified: Record<string, Remembered>
}

/** Of its time, what is noted one by one may spend on writing the file: it is written whole each time. */
const WRITING_SHARE = 0.1

/** What one machine remembers of one store: a JSON file, replaced atomically. The last of two writers wins. */
export class VerifyNotes {
  readonly #folder: string
  readonly #store: string
  readonly #path: string
  /** What is not in the file yet, by the object's key. */
  readonly #pending = new Map<string, Remembered>()
  /** When it may be written again, on the clock of `performance`. */
  #due = 0

  /** @param store its location, without credentials. */
  constructor(folder: string, store: string) {
    this.#folder = folder
    this.#store = store
    this.#path = join(folder, `${createHash('sha256').update(store).digest('hex').slice(0, 32)}.json`)
  }

  /**
   * The last verification of each of some snapshots, unless the object is another one since.
   * @returns by the object's key; a state that cannot be read is as none.
   */
  async verified(snapshots: readonly Snapshot[]): Promise<Map<string, Remembered>> {
    const { verified } = await this.#read()
    const found = new Map<string, Remembered>()
    for (const { key, storedBytes, version } of snapshots) {
      const one = verified[key]
      if (!one || one.size !== storedBytes) continue
      if (version === undefined || one.version === null || version === one.version) found.set(key, one)
    }
    return found
  }

  /** @throws the file system's error when it cannot be written. */
  async remember(snapshot: Snapshot, verification: Verification, at = Date.now()): Promise<void> {
    this.#note(snapshot, verification, at)
    await this.flush()
  }

  /**
   * Remembers one of many. Where they come faster than the file can be written, several are written at once, and
   * `flush` writes the last.
   * @throws the file system's error when it cannot be written.
   */
  async add(snapshot: Snapshot, verification: Verification, at = Date.now()): Promise<void> {
    this.#note(snapshot, verification, at)
    if (performance.now() >= this.#due) await this.flush()
  }

  /** Writes what `add` has not written yet. @throws the file system's error when it cannot be written. */
  async flush(): Promise<void> {
    if (this.#pending.size === 0) return
    const begun = performance.now()
    const written = [...this.#pending]
    try {
      await this.#write(written)
      for (const [key, one] of written) if (this.#pending.get(key) === one) this.#pending.delete(key)
    } finally {
      const ended = performance.now()
      this.#due = ended + (ended - begun) / WRITING_SHARE
    }
  }

  #note(snapshot: Snapshot, { status, mode, reason }: Verification, at: number): void {
    this.#pending.set(snapshot.key, {
      ...{ size: snapshot.storedBytes, version: snapshot.version ?? null, status, mode, at },
      ...(reason === undefined ? {} : { reason }),
    })
  }

  async #write(noted: readonly [string, Remembered][]): Promise<void> {
    const state = await this.#read()
    for (const [key, one] of noted) state.verified[key] = one
    await makeFolders(this.#folder, 0o700)
    const partial = `${this.#path}.${randomBytes(6).toString('hex')}.new`
    try {
      await writeFile(partial, JSON.stringify(state), { mode: 0o600, flush: true })
      await rename(partial, this.#path)
    } catch (error) {
      await rm(partial, { force: true })
      throw error
    }
  }

  async #read(): Promise<StateFile> {
    const none: StateFile = { v: 1, store: this.#store, verified: {} }
    try {
      const state = JSON.parse(await readFile(this.#path, 'utf8')) as StateFile
      if (state.v !== 1 || state.store !== this.#store) return none
      const whole = Object.entries(state.verified).filter(([, one]) => isRemembered(one))
      return { ...none, verified: Object.fromEntries(whole) }
    } catch {
      return none
    }
  }
}

const STATUSES: readonly unknown[] = ['ok', 'unverified', 'damaged'] satisfies Remembered['status'][]
const MODES: readonly unknown[] = ['quick', 'sample', 'full', 'restore-test'] satisfies Remembered['mode'][]
/** What a Date can hold. */
const TIME_MAX_MS = 8.64e15

function isRemembered(value: unknown): value is Remembered {
  const { size, version, status, mode, at, reason } = Object(value) as Record<keyof Remembered, unknown>
  return (
    Number.isSafeInteger(size) &&
    (version === null || typeof version === 'string') &&
    STATUSES.includes(status) &&
    MODES.includes(mode) &&
    typeof at === 'number' &&
    Math.abs(at) <= TIME_MAX_MS &&
    (reason === undefined || typeof reason === 'string')
  )
}
