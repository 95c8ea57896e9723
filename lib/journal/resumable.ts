import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'
import { TransformError } from '../../transforms/index.ts'
import { COMPRESSOR_VERSION } from '../../transforms/zstd-codec.ts'
import { readCompanion, writeCompanion } from '../companion.ts'
import { BackupError } from '../errors.ts'
import type { SelectionOptions } from '../exclude.ts'
import { newId } from '../names.ts'
import type { BackupSource } from '../source.ts'
import { type Attempt, cancelUnknown, JournaledAttempt } from './attempt.ts'
import { ClaimFiles } from './claims.ts'
import { type FoundJournal, journalFile, listJournals } from './folder.ts'
import { Journal } from './journal.ts'
import { thisRun } from './owner.ts'
import type { JournalContents, JournalHead } from './records.ts'

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
        if (error.code === 'DIFFERS') await this.#discard(left.file, left.head.id, left.before)
      }
    }
    return this.#attempt(await this.#begin(), make)
  }

  async #attempt<T>(journal: Journal, make: (attempt: Attempt) => Promise<T>): Promise<T> {
    const attempt = new JournaledAttempt(journal, this.#context)
    let made: T
    try {
      made = await make(attempt)
    } catch (error) {
      // Where no upload came to be there is nothing to take up. What failed is to be told, and not what follows from it.
      await (attempt.hasUpload ? journal.close() : journal.remove()).catch(() => {})
      throw error
    }
    await attempt.discardUnused()
    await this.#done(journal.file, () => journal.remove())
    // Whatever an earlier run has left is of no use beside a newer snapshot.
    for (const { owner, file, id, contents } of await this.#left()) {
      const isLeft = owner === 'dead' || (owner === 'unknown' && this.#lease !== null)
      if (isLeft) await this.#discard(file, id, contents)
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
        if (problem !== undefined) await this.#another(file, id, problem)
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
    await this.#discard(file, head.id, undefined)
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
  async #discard(file: string, id: string, contents: JournalContents | undefined): Promise<void> {
    const { storage, signal, onWarning } = this.#context
    const { upload } = contents ?? {}
    try {
      if (upload) await storage.discardUpload?.(upload.key, upload.upload, { signal })
      await cancelUnknown(this.#context, id)
    } catch (error) {
      if (signal?.aborted) throw error
      // It stays, so that the next run can try again.
      onWarning(`An upload to ${storage.location} could not be cancelled: ${(error as Error).message}`)
      return
    }
    await this.#done(file, () => rm(file, { force: true }))
  }

  /** A journal is of no use any more. One that stays undoes no snapshot, and the next run removes it. */
  async #done(file: string, remove: () => Promise<void>): Promise<void> {
    try {
      await remove()
    } catch (error) {
      this.#context.onWarning(`The journal ${file} could not be removed: ${(error as Error).message}`)
    }
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
