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

/** What one machine remembers of one store: a JSON file, replaced atomically. The last of two writers wins. */
export class VerifyNotes {
  readonly #folder: string
  readonly #store: string
  readonly #path: string

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
    const { status, mode, reason } = verification
    const state = await this.#read()
    state.verified[snapshot.key] = {
      ...{ size: snapshot.storedBytes, version: snapshot.version ?? null, status, mode, at },
      ...(reason === undefined ? {} : { reason }),
    }
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
      return state.v === 1 && state.store === this.#store && typeof state.verified === 'object' ? state : none
    } catch {
      return none
    }
  }
}
