import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage, StoredPart, UploadJournal } from '../../adapters/storage.ts'
import { type FrameLedger, HEADER_BYTES, parseHeader, SEAL_BYTES, TransformError } from '../../transforms/index.ts'
import { COMPRESSOR_VERSION } from '../../transforms/zstd-codec.ts'
import { readCompanion, writeCompanion } from '../companion.ts'
import { BackupError } from '../errors.ts'
import type { SelectionOptions } from '../exclude.ts'
import { idTime, newId } from '../names.ts'
import type { BackupSource } from '../source.ts'
import { ClaimFiles } from './claims.ts'
import { type FoundJournal, journalFile, listJournals } from './folder.ts'
import { Journal } from './journal.ts'
import { thisRun } from './owner.ts'
import type { JournalContents, JournalHead, JournalOptions } from './records.ts'

/** After so long an upload that another source was uploaded by is given up: no store keeps it for much longer. */
const ABANDONED_MS = 7 * 86_400_000

/** Where the journals of uploads are kept, and what is done with one that is there. */
export interface ResumableOptions {
  /** The folder of journals; it is made. */
  folder: string
  /**
   * Take up what an earlier run has left. `strict`: where it cannot be taken up to its end as it was begun, fail with
   * DIFFERS and leave it. Otherwise a new object is begun then. false when left out: only a journal is kept.
   */
  resume?: boolean | 'strict' | undefined
}

/** What was taken up. */
export interface TakenUpload {
  /** When the upload was begun, in ms since 1970. */
  since: number
  /** Bytes that the store held already. */
  heldBytes: number
  /** Bytes that were sent now. */
  sentBytes: number
}

/** How one attempt at an object is made, so that another can go on with it. */
export interface Attempt {
  id: string
  tool: string
  options: Pick<JournalOptions, 'level' | 'zstdFrameBytes' | 'iterations'>
  ledger: FrameLedger
  /** The journal of the upload under this key. */
  upload(key: string): UploadJournal
  /** The store has committed the object: on the disk when it resolves. */
  committed(key: string, bytes: number, sha256: string): Promise<void>
  /** What was taken up, as far as it is known; null where the upload was begun. */
  taken(): TakenUpload | null
}

export interface ResumableContext {
  storage: Storage
  server: string
  encrypted: boolean
  tool: string
  source: BackupSource
  options: SelectionOptions & {
    level?: number | undefined
    zstdFrameBytes?: number | undefined
    iterations?: number | undefined
  }
  /** Told what became of what was there. */
  onWarning: (message: string) => void
  signal?: AbortSignal | undefined
}

/** The uploads of one server to one store that can be taken up, and the one that is made now. */
export class Resumable {
  readonly #context: ResumableContext
  readonly #how: ResumableOptions
  readonly #source: string
  readonly #claims: ClaimFiles
  #lease: string | null = null

  /** @throws BackupError USAGE for a stream, which cannot be read a second time, and where the store cannot do it. */
  constructor(how: ResumableOptions, context: ResumableContext) {
    const { storage, source } = context
    if (typeof source !== 'string' && !('command' in source)) {
      throw new BackupError('USAGE', 'A stream cannot be read a second time, so its upload cannot have a journal.')
    }
    if (!storage.discardUpload) {
      throw new BackupError(
        'USAGE',
        `Uploads to ${storage.location} cannot be taken up, so they have no journal. Leave --journal and --resume out.`,
      )
    }
    this.#how = how
    this.#context = context
    this.#claims = new ClaimFiles(join(how.folder, context.server))
    // Not its arguments, which may hold a secret: should they be others, so are the bytes.
    this.#source = typeof source === 'string' ? resolve(source) : `program ${source.command[0]}`
  }

  /** The leases of runs that are known to have died. */
  async deadLeases(): Promise<string[]> {
    const dead = (await this.#ours()).filter(({ owner }) => owner === 'dead')
    return [...dead.flatMap(({ contents }) => contents?.run.lease ?? []), ...(await this.#claims.dead())]
  }

  /** To be called before a claim to the lease is made. @throws BackupError JOURNAL. */
  claiming(id: string): Promise<void> {
    return this.#claims.note(id)
  }

  /**
   * To be called when the lease is held: what was dead is gone from the store.
   * @param lease the id of it; null where the run has none.
   */
  async leased(lease: string | null): Promise<void> {
    this.#lease = lease
    if (lease !== null) await this.#claims.dropDead(Date.now() - ABANDONED_MS)
  }

  /** The id of the snapshot that `run` is going to go on with, if the source is as it was; undefined: with none. */
  async candidate(): Promise<string | undefined> {
    if (!this.#how.resume) return undefined
    const left = (await this.#ours()).filter(
      ({ owner, contents }) =>
        contents && (owner === 'dead' || (owner === 'unknown' && this.#lease)) && !this.#differenceOf(contents.head),
    )
    return left.at(-1)?.id
  }

  /** To be called when the lease was given back. */
  released(): Promise<void> {
    return this.#claims.dropOwn()
  }

  /**
   * Makes the object: goes on with what an earlier run has left, or begins.
   * @param make makes one attempt.
   * @throws BackupError DIFFERS, JOURNAL; what `make` throws. The upload stays then, and its journal.
   */
  async run<T>(make: (attempt: Attempt) => Promise<T>): Promise<T> {
    const left = this.#how.resume ? await this.#takeUp() : undefined
    if (left) {
      try {
        return await this.#attempt(left, make)
      } catch (error) {
        if (!isAnother(error)) throw error
        await this.#another(left.file, left.head.id, error.message)
        // With a mistyped password it may yet be wanted: it goes when the new snapshot is there.
        if (error.code === 'DIFFERS') await this.#discard(left.file, left.before)
      }
    }
    return this.#attempt(await this.#begin(), make)
  }

  async #attempt<T>(journal: Journal, make: (attempt: Attempt) => Promise<T>): Promise<T> {
    const attempt = new JournaledAttempt(journal, this.#context.storage)
    let made: T
    try {
      made = await make(attempt)
    } catch (error) {
      // Where no upload came to be there is nothing to take up.
      if (attempt.hasUpload) await journal.close()
      else await journal.remove()
      throw error
    }
    await attempt.discardUnused()
    await journal.remove()
    // Whatever an earlier run has left is of no use beside a newer snapshot.
    for (const { owner, file, contents } of await this.#left()) {
      const isLeft = owner === 'dead' || (owner === 'unknown' && this.#lease !== null)
      if (isLeft) await this.#discard(file, contents)
    }
    return made
  }

  async #begin(): Promise<Journal> {
    const { server, encrypted, tool, storage, options } = this.#context
    const id = newId(new Date())
    const { level, zstdFrameBytes, iterations } = options
    const head: JournalHead = {
      v: 1,
      server,
      id,
      tool,
      zstd: zstdVersion(),
      source: this.#source,
      location: storage.location,
      encrypted,
      options: { level, zstdFrameBytes, iterations, selection: selectionOf(options) },
    }
    return Journal.create(journalFile(this.#how.folder, server, id), head, await thisRun(this.#lease))
  }

  /** @returns the journal of the newest upload that can be gone on with. */
  async #takeUp(): Promise<Journal | undefined> {
    for (const { file, id, owner, contents, problem } of (await this.#ours()).reverse()) {
      if (owner === 'alive') continue
      if (!contents) {
        await this.#another(file, id, problem ?? 'It cannot be read.')
        continue
      }
      // Without a lease nothing but the end of its process says that nobody is at work on it.
      if (owner !== 'dead' && this.#lease === null) {
        await this.#another(file, id, 'Whether its process is still at work cannot be told from here.')
        continue
      }
      if (contents.done && !(await this.#finish(file, contents))) continue
      const difference = this.#differenceOf(contents.head)
      if (difference !== undefined) {
        await this.#another(file, id, difference)
        continue
      }
      return Journal.open(file, await thisRun(this.#lease))
    }
    return undefined
  }

  /** Why a journal cannot be of the same bytes; undefined where it may be. */
  #differenceOf({ zstd, encrypted, options }: JournalHead): string | undefined {
    const ours = this.#context
    if (encrypted !== ours.encrypted) return `It was begun ${encrypted ? 'with' : 'without'} encryption.`
    if (options.selection !== selectionOf(ours.options)) return 'Other files were included or excluded.'
    if (zstd !== zstdVersion()) return `It was begun with zstd ${zstd}, and this is ${zstdVersion()}.`
    return undefined
  }

  /**
   * A run died between the commit of its object and the companion, or the end of its journal.
   * @returns whether what is to be backed up may be that snapshot: it was not complete until now, and can be compared.
   */
  async #finish(file: string, { head, upload, done }: JournalContents): Promise<boolean> {
    const { storage, signal, onWarning } = this.#context
    const { key, bytes, sha256 } = done as NonNullable<JournalContents['done']>
    try {
      const stat = await storage.stat(key, { signal })
      if (stat.size === bytes && (await readCompanion(storage, key, signal)) === null) {
        await writeCompanion(storage, key, sha256, signal)
        onWarning(`The snapshot ${key} had been stored by a run that then died. It is complete now.`)
        if (head.encrypted && upload) return true
      }
    } catch (error) {
      if (!(error instanceof StorageError && error.code === 'NOT_FOUND')) throw error
    }
    await this.#discard(file, undefined)
    return false
  }

  /** Those of this source and store; and those that cannot be read. */
  async #ours(): Promise<FoundJournal[]> {
    return (await this.#atStore()).filter(({ contents }) => !contents || contents.head.source === this.#source)
  }

  /** Those, and any that nobody has gone on with for a week: its source may be somewhere else by now. */
  async #left(): Promise<FoundJournal[]> {
    const limit = Date.now() - ABANDONED_MS
    return (await this.#atStore()).filter(
      ({ contents }) => !contents || contents.head.source === this.#source || contents.run.since < limit,
    )
  }

  async #atStore(): Promise<FoundJournal[]> {
    const { server, storage } = this.#context
    return (await listJournals(this.#how.folder, server)).filter(
      ({ contents }) => !contents || contents.head.location === storage.location,
    )
  }

  async #another(file: string, id: string, why: string): Promise<void> {
    if (this.#how.resume === 'strict') {
      throw new BackupError(
        'DIFFERS',
        `The upload of ${id} cannot be taken up. ${why} It is left as it is; run without --resume=strict to begin anew, or remove its journal ${file}.`,
      )
    }
    this.#context.onWarning(`The upload of ${id} is not taken up. ${why}`)
  }

  /** Cancels an upload at the store, and removes its journal when that is done. */
  async #discard(file: string, contents: JournalContents | undefined): Promise<void> {
    const { storage, signal, onWarning } = this.#context
    const { upload } = contents ?? {}
    try {
      if (upload) await storage.discardUpload?.(upload.key, upload.upload, { signal })
    } catch (error) {
      if (signal?.aborted) throw error
      // It stays, so that the next run can try again.
      onWarning(`An upload to ${storage.location} could not be cancelled: ${(error as Error).message}`)
      return
    }
    await rm(file, { force: true })
  }
}

class JournaledAttempt implements Attempt {
  readonly #journal: Journal
  readonly #storage: Storage
  #heldBytes = 0
  #sentBytes = 0
  #hasUpload: boolean
  #isUsed = false

  constructor(journal: Journal, storage: Storage) {
    this.#journal = journal
    this.#storage = storage
    this.#hasUpload = journal.before?.upload !== undefined
  }

  get id(): string {
    return this.#journal.head.id
  }

  get tool(): string {
    return this.#journal.head.tool
  }

  get options(): Attempt['options'] {
    const { level, zstdFrameBytes, iterations } = this.#journal.head.options
    return { level, zstdFrameBytes, iterations }
  }

  get ledger(): FrameLedger {
    return this.#journal
  }

  get hasUpload(): boolean {
    return this.#hasUpload
  }

  upload(key: string): UploadJournal {
    const before = this.#journal.before?.upload
    return {
      earlier: before?.key === key ? before.upload : undefined,
      sureBytes: this.#sureBytes,
      begun: async (upload) => {
        this.#journal.begun({ key, upload })
        await this.#journal.flush()
        this.#hasUpload = true
        this.#isUsed = true
        // Nothing knows of it any more. Where it is gone this is success, and else prune finds it one day.
        if (before) await this.#storage.discardUpload?.(before.key, before.upload).catch(() => {})
      },
      ready: () => this.#journal.flush(),
      stored: (part) => this.#stored(part),
    }
  }

  /** An object that turned out to be one request takes no upload up. */
  async discardUnused(): Promise<void> {
    const before = this.#journal.before?.upload
    if (!before || this.#isUsed) return
    await this.#storage.discardUpload?.(before.key, before.upload).catch(() => {})
  }

  async committed(key: string, bytes: number, sha256: string): Promise<void> {
    this.#journal.done({ key, bytes, sha256 })
    await this.#journal.flush()
    this.#hasUpload = true
  }

  taken(): TakenUpload | null {
    if (!this.#journal.before) return null
    const since = (idTime(this.id) as Date).getTime()
    return { since, heldBytes: this.#heldBytes, sentBytes: this.#sentBytes }
  }

  /** The frames that are compared before they leave. Without encryption nothing is certain. */
  get #sureBytes(): number {
    const { header, frames } = this.#journal.before ?? {}
    if (!header || frames === undefined) return 0
    return HEADER_BYTES + frames * (parseHeader(header).frameBytes + SEAL_BYTES)
  }

  #stored({ number, bytes, checksum, sent }: StoredPart): void {
    this.#isUsed = true
    if (sent) this.#sentBytes += bytes
    else this.#heldBytes += bytes
    this.#journal.stored(number, bytes, checksum)
  }
}

/** Whether the bytes, or the key, are not those that the upload was begun with. */
function isAnother(error: unknown): error is TransformError {
  return error instanceof TransformError && (error.code === 'DIFFERS' || error.code === 'WRONG_KEY')
}

function selectionOf({ include, exclude, defaultExcludes }: SelectionOptions): string {
  return JSON.stringify([include ?? null, exclude ?? null, defaultExcludes ?? true])
}

function zstdVersion(): string {
  return `${process.versions.zstd ?? 'unknown'} (frames ${COMPRESSOR_VERSION})`
}
