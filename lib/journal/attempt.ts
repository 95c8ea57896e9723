import { StorageError } from '../../adapters/errors.ts'
import type { Storage, StoredPart, UploadJournal } from '../../adapters/storage.ts'
import { type FrameLedger, HEADER_BYTES, parseHeader, SEAL_BYTES } from '../../transforms/index.ts'
import { idTime } from '../names.ts'
import type { Journal } from './journal.ts'
import type { JournalOptions } from './records.ts'

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

/** Where an attempt's object goes. */
interface UploadContext {
  storage: Storage
  server: string
  signal?: AbortSignal | undefined
}

/** An attempt whose upload a journal remembers. */
export class JournaledAttempt implements Attempt {
  readonly #journal: Journal
  readonly #context: UploadContext
  #heldBytes = 0
  #sentBytes = 0
  #hasUpload: boolean
  #isUsed = false

  constructor(journal: Journal, context: UploadContext) {
    this.#journal = journal
    this.#context = context
    // An earlier run may have begun one whose name it did not come to take down.
    this.#hasUpload = journal.before !== undefined
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
        // Where it is gone this is success. What cannot be cancelled now is tried again at the end.
        if (before) await this.#context.storage.discardUpload?.(before.key, before.upload).catch(() => {})
      },
      ready: () => this.#journal.flush(),
      stored: (part) => this.#stored(part),
    }
  }

  /** Cancels what earlier runs have begun for the object and this one has not used. */
  async discardUnused(): Promise<void> {
    if (!this.#journal.before) return
    const { storage } = this.#context
    const { upload } = this.#journal.before
    // An object that turned out to be one request takes no upload up.
    if (upload && !this.#isUsed) await storage.discardUpload?.(upload.key, upload.upload).catch(() => {})
    await cancelUnknown(this.#context, this.id).catch(() => {})
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

/**
 * Cancels the uploads of a snapshot whose names nobody knows: of a run that was killed when it had asked for one and had
 * not taken its name down. Nobody else has an upload of that id.
 * @throws StorageError when the store could not be asked, AbortError.
 */
export async function cancelUnknown({ storage, server, signal }: UploadContext, id: string): Promise<void> {
  // The prefix of something else would be of other uploads.
  if (idTime(id) === null) return
  try {
    await storage.purgeUnfinished?.(0, { prefix: `${server}/${id}`, signal })
  } catch (error) {
    // A key that may not list or cancel them can do no more.
    if (!(error instanceof StorageError) || error.code !== 'ACCESS_DENIED') throw error
  }
}
