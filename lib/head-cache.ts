import { createHash, randomUUID } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { IndexHead } from '../transforms/index.ts'
import type { Snapshot } from './catalog.ts'
import { makeFolders } from './folders.ts'

/*
 * What snapshots say of themselves is kept in the state folder, so that a list needs no password and opens no object.
 * One file a store and server.
 */

/** What a snapshot says of itself in its index's head. */
export interface KnownHead {
  consistency: string
  files: number
  /** The archive's bytes. */
  bytes: number
  /** Names that patterns left out. */
  excluded: number
}

interface CacheEntry extends KnownHead {
  size: number
  version: string | null
}

interface CacheFile {
  v: 1
  location: string
  /** By the object's key. */
  snapshots: Record<string, CacheEntry>
}

/** Picks what is kept from an index's head. */
export function knownOf({ consistency, files, bytes, excluded = 0 }: IndexHead): KnownHead {
  return { consistency, files, bytes, excluded }
}

/**
 * What is known of the snapshots of one store. It is a cache: what cannot be read is not known, and what cannot be
 * written is forgotten.
 */
export class HeadCache {
  readonly #folder: string
  readonly #location: string

  /** @param location the store's, as `Storage.location` has it. */
  constructor(stateFolder: string, location: string) {
    const name = createHash('sha256').update(location).digest('hex').slice(0, 24)
    this.#folder = join(stateFolder, 'snapshots', name)
    this.#location = location
  }

  /** What is known of these snapshots, by their keys. Of an object with another size or version nothing is. */
  async read(snapshots: readonly Snapshot[]): Promise<Map<string, KnownHead>> {
    const found = new Map<string, KnownHead>()
    for (const server of new Set(snapshots.map((one) => one.server))) {
      const known = await this.#load(server)
      for (const snapshot of snapshots) {
        const entry = snapshot.server === server && Object.hasOwn(known, snapshot.key) ? known[snapshot.key] : undefined
        if (entry?.size !== snapshot.storedBytes || entry.version !== (snapshot.version ?? null)) continue
        const { consistency, files, bytes, excluded } = entry
        found.set(snapshot.key, { consistency, files, bytes, excluded })
      }
    }
    return found
  }

  /** Keeps what snapshots of one server say. Never fails. */
  async write(server: string, heads: readonly (readonly [Snapshot, KnownHead])[]): Promise<void> {
    if (heads.length === 0) return
    const snapshots = await this.#load(server)
    for (const [{ key, storedBytes, version }, head] of heads) {
      snapshots[key] = { ...head, size: storedBytes, version: version ?? null }
    }
    await this.#save(server, snapshots)
  }

  /** Forgets the snapshots of a server that are not among all that there are. Never fails. */
  async keepOnly(server: string, all: readonly Snapshot[]): Promise<void> {
    const known = await this.#load(server)
    const keys = new Set(all.map(({ key }) => key))
    const kept = Object.entries(known).filter(([key]) => keys.has(key))
    if (kept.length < Object.keys(known).length) await this.#save(server, Object.fromEntries(kept))
  }

  #fileOf(server: string): string {
    return join(this.#folder, `${server}.json`)
  }

  async #load(server: string): Promise<CacheFile['snapshots']> {
    try {
      const { v, location, snapshots } = JSON.parse(await readFile(this.#fileOf(server), 'utf8')) as CacheFile
      if (v !== 1 || location !== this.#location) return {}
      return Object.fromEntries(Object.entries(snapshots).filter(([, entry]) => isEntry(entry)))
    } catch {
      return {}
    }
  }

  async #save(server: string, snapshots: CacheFile['snapshots']): Promise<void> {
    const file = this.#fileOf(server)
    const temporary = `${file}.${randomUUID()}`
    try {
      await makeFolders(dirname(file), 0o700)
      const content: CacheFile = { v: 1, location: this.#location, snapshots }
      await writeFile(temporary, `${JSON.stringify(content)}\n`, { mode: 0o600 })
      await rename(temporary, file)
    } catch {
      await rm(temporary, { force: true }).catch(() => {})
    }
  }
}

function isEntry(entry: CacheEntry): boolean {
  const { consistency, files, bytes, excluded, size, version } = entry ?? {}
  return (
    typeof consistency === 'string' &&
    [files, bytes, excluded, size].every((one) => Number.isSafeInteger(one)) &&
    (version === null || typeof version === 'string')
  )
}
