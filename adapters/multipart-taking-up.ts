import { StorageError } from './errors.ts'
import { quoteKey } from './keys.ts'
import type { PartBody, PrimitiveRequest } from './multipart-sender.ts'
import type { UploadJournal, WriteOptions } from './storage.ts'

/** An upload of another process, as the store has it. */
export interface TakenUp<Upload, Receipt> {
  upload: Upload
  /** @returns the receipt of a part that the store holds, byte for byte by its own checksum; else undefined. */
  receiptOf(part: PartBody): Receipt | undefined
}

/** What a store needs for uploads that another process can take up. */
export interface TakingUpStore<Upload, Receipt> {
  /** An upload's name, for `takeUp`. */
  nameOf(upload: Upload): string
  /** What the store said of a part. */
  checksumOf(receipt: Receipt): string
  /**
   * Asks the store what it holds of an upload. One that has become the object of this key meanwhile holds all, where
   * the object is no larger than `sureBytes`: the commit has nothing to do then, and `find` compares as ever.
   * @param sureBytes see `UploadJournal`.
   * @returns undefined when it has it no more, or it cannot be gone on with.
   */
  takeUp(name: string, request: PrimitiveRequest, sureBytes: number): Promise<TakenUp<Upload, Receipt> | undefined>
}

/** @throws StorageError INVALID for a journal, at a store whose uploads cannot be taken up. */
export function refuseJournal({ journal }: WriteOptions, names: { adapter: string; key: string }): void {
  if (!journal) return
  const message = `The upload of ${quoteKey(names.key)} was to have a journal, and uploads to this store cannot be taken up.`
  throw new StorageError(message, { code: 'INVALID', operation: 'createWriteStream', ...names })
}

interface RecordedUpload {
  partBytes: number
  name: string
}

/** @returns what a stream gave to `UploadJournal.begun`; undefined when it is nothing of the kind. */
export function parseUpload(text: string): RecordedUpload | undefined {
  try {
    const { partBytes, name } = Object(JSON.parse(text)) as Partial<Record<keyof RecordedUpload, unknown>>
    if (typeof partBytes === 'number' && typeof name === 'string') return { partBytes, name }
  } catch {}
  return undefined
}

/** What names an upload for another process, with these fields. */
export type UploadName<Fields extends readonly string[]> = Record<Fields[number], string>

/**
 * Reads a name that an adapter wrote as JSON.
 * @returns its fields, all of them texts; undefined when it has not all of them.
 */
export function parseName<Field extends string>(
  name: string,
  fields: readonly Field[],
): Record<Field, string> | undefined {
  try {
    const found = Object(JSON.parse(name)) as Record<Field, unknown>
    if (fields.every((field) => typeof found[field] === 'string')) return found as Record<Field, string>
  } catch {}
  return undefined
}

/** @returns the name in what a stream gave to `UploadJournal.begun`, as `parseName` reads it. */
export function nameIn<Field extends string>(
  record: string,
  fields: readonly Field[],
): Record<Field, string> | undefined {
  const upload = parseUpload(record)
  return upload && parseName(upload.name, fields)
}

/** The journal of an upload in parts: what may be sent, what need not be, and what another process is to know. */
export class PartJournal<Upload, Receipt> {
  readonly #store: TakingUpStore<Upload, Receipt>
  readonly #journal: UploadJournal
  readonly #partBytes: number
  #taken: TakenUp<Upload, Receipt> | undefined
  #failure: { error: unknown } | undefined

  constructor(store: TakingUpStore<Upload, Receipt>, journal: UploadJournal, partBytes: number) {
    this.#store = store
    this.#journal = journal
    this.#partBytes = partBytes
  }

  /** Whether nobody but this process knows of its upload: the journal did not take it. */
  get isUnknown(): boolean {
    return this.#failure !== undefined
  }

  /**
   * Takes the journal's upload up, or begins one where the store has it no more or its parts were of another size.
   * @param ask calls the store, with retries.
   */
  async open(
    begin: () => Promise<Upload>,
    ask: <T>(call: (request: PrimitiveRequest) => Promise<T>) => Promise<T>,
  ): Promise<Upload> {
    const { earlier, sureBytes } = this.#journal
    const recorded = earlier === undefined ? undefined : parseUpload(earlier)
    if (recorded?.partBytes === this.#partBytes) {
      this.#taken = await ask((request) => this.#store.takeUp(recorded.name, request, sureBytes))
      if (this.#taken) return this.#taken.upload
    }
    const upload = await begin()
    const record: RecordedUpload = { partBytes: this.#partBytes, name: this.#store.nameOf(upload) }
    try {
      await this.#journal.begun(JSON.stringify(record))
    } catch (error) {
      // The upload is there all the same, and is to be cancelled: `ready` says what went wrong.
      this.#failure = { error }
    }
    return upload
  }

  /** @returns the receipt of a part that need not be sent. */
  held(part: PartBody): Receipt | undefined {
    const receipt = this.#taken?.receiptOf(part)
    if (receipt !== undefined) this.#tell(part, receipt, false)
    return receipt
  }

  /** Resolves when the bytes that the stream has may be sent. */
  async ready(): Promise<void> {
    if (this.#failure) throw this.#failure.error
    await this.#journal.ready()
  }

  /** A part was sent, and acknowledged. */
  stored(part: PartBody, receipt: Receipt): void {
    this.#tell(part, receipt, true)
  }

  #tell({ number, body }: PartBody, receipt: Receipt, sent: boolean): void {
    this.#journal.stored({ number, bytes: body.length, checksum: this.#store.checksumOf(receipt), sent })
  }
}
