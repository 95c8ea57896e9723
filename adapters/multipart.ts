import { addAbortSignal, Writable } from 'node:stream'
import { StorageError, type StorageErrorCode, withCleanupError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { Commitment, type FoundObject } from './multipart-commit.ts'
import { checkSizes, type MultipartRules, type PartPlan, planParts } from './multipart-plan.ts'
import { type PartBody, PartSender, type PartStore, type PrimitiveRequest } from './multipart-sender.ts'
import { PartJournal, refuseJournal, type TakenUp, type TakingUpStore } from './multipart-taking-up.ts'
import { CALL_RETRY, PART_RETRY, type RetryClock, type RetryPolicy } from './retry.ts'
import type { WriteOptions } from './storage.ts'

export type { FoundObject, MultipartRules, PartBody, PartStore, PrimitiveRequest, TakenUp }

const FIRST_BUFFER_BYTES = 64 * 1024

/**
 * One write to one key, as an adapter offers it to {@link MultipartWritable}. Each call is one attempt: nothing in it
 * retries. Errors are StorageErrors, and `retryable` decides. Once a call has settled, aborted or not, no socket may
 * still read from the body that it was given.
 */
export interface MultipartPrimitives<Upload, Receipt> extends PartStore<Upload, Receipt> {
  readonly rules: MultipartRules
  /** Stores a whole object in one request. The body can be empty. */
  putWhole(body: Buffer, request: PrimitiveRequest): Promise<void>
  /** Begins an upload in parts. */
  begin(request: PrimitiveRequest): Promise<Upload>
  /** Sends one part; sending a number again replaces it. */
  putPart(upload: Upload, part: PartBody, request: PrimitiveRequest): Promise<Receipt>
  /** Makes the object of its parts, in order. Called again when an answer was lost. */
  commit(upload: Upload, receipts: Receipt[], request: PrimitiveRequest): Promise<void>
  /** Cancels an upload; one that is gone already is success. */
  abort(upload: Upload, request: PrimitiveRequest): Promise<void>
  /** Asks what is under the key; undefined when nothing is. */
  find(request: PrimitiveRequest): Promise<FoundObject | undefined>
  /** Removes exactly the object that `find` just called ours. */
  remove(request: PrimitiveRequest): Promise<void>
  /**
   * Does to the object that `find` just called ours what is left to do: puts a lock on it that the store left out of the
   * upload, removes what it replaces where the store keeps both. Never called after `destroy()`.
   */
  secure?(request: PrimitiveRequest): Promise<void>
  /** Cancels uploads whose `begin` was carried out and not answered, where there is none to call `abort` for. */
  clear?(request: PrimitiveRequest): Promise<void>
  /** Names an upload, for `takeUp`. With this and the two below, uploads can be taken up; see `TakingUpStore`. */
  nameOf?(upload: Upload): string
  /** What the store said of a part. */
  checksumOf?(receipt: Receipt): string
  /** Asks the store what it holds of an upload. */
  takeUp?: TakingUpStore<Upload, Receipt>['takeUp']
}

/** What a MultipartWritable is told of the object that it writes. */
export interface MultipartOptions extends WriteOptions {
  adapter: string
  key: string
  /** Parts are at least this large; 8 MiB when absent. */
  partBytes?: number | undefined
  /** See SETTLE_MS. */
  settleMs?: number | undefined
  partRetry?: RetryPolicy | undefined
  callRetry?: RetryPolicy | undefined
  clock?: RetryClock | undefined
}

/**
 * A Writable whose `finish` is the commit of one object, in parts where it is larger than one.
 *
 * It copies what it is given into a ring of RING_BYTES and sends from there. A full buffer leaves only when a further
 * byte has come, so an object of at most one part is one `putWhole`, and the last part is always known as the last.
 */
export class MultipartWritable<Upload, Receipt> extends Writable {
  readonly #store: MultipartPrimitives<Upload, Receipt>
  readonly #options: MultipartOptions
  readonly #plan: PartPlan
  readonly #sender: PartSender<Upload, Receipt>
  readonly #commitment: Commitment
  readonly #journal: PartJournal<Upload, Receipt> | undefined
  #buffer: Buffer
  #used = 0
  #bytes = 0
  #finishing: Promise<void> | undefined

  /**
   * @throws StorageError INVALID when `size` is more than the store takes, or no count of bytes, and for a journal where
   * the store's uploads cannot be taken up.
   */
  constructor(store: MultipartPrimitives<Upload, Receipt>, options: MultipartOptions) {
    super({ highWaterMark: 256 * 1024, decodeStrings: true })
    const { size, expectedSize, adapter, key, signal, partRetry, callRetry, clock } = options
    this.#store = store
    this.#options = options
    this.#plan = planParts(store.rules, options)
    checkSizes(this.#plan, options, { adapter, key })
    const first = Math.min(size ?? expectedSize ?? FIRST_BUFFER_BYTES, this.#plan.partBytes)
    this.#buffer = Buffer.allocUnsafeSlow(first)
    this.#commitment = new Commitment(store, options)
    if (options.journal) {
      if (!canTakeUp(store)) refuseJournal(options, { adapter, key })
      else this.#journal = new PartJournal(store, options.journal, this.#plan.partBytes)
    }
    this.#sender = new PartSender(store, {
      plan: this.#plan,
      journal: this.#journal,
      settleSignal: this.#commitment.settleSignal,
      onFailure: (error) => this.destroy(error as Error),
      partRetry,
      callRetry,
      clock,
    })
    // Last: a signal that has fired already destroys at once, and _destroy needs the fields above.
    if (signal) addAbortSignal(signal, this)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    const fault = this.#count(chunk.length)
    if (fault) {
      callback(fault)
      return
    }
    // Nothing is allocated here for the many small writes that fit.
    const taken = this.#take(chunk, 0)
    if (taken === chunk.length) callback()
    else this.#takeLater([{ chunk }], 0, taken, callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    const fault = this.#count(items.reduce((sum, { chunk }) => sum + chunk.length, 0))
    if (fault) callback(fault)
    else this.#takeAll(items, 0, 0, callback)
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#finishing = this.#finish()
    this.#finishing.then(() => callback(), callback)
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.writableFinished) {
      callback(error)
      return
    }
    const stays = () => this.#journal !== undefined && !this.#journal.isUnknown
    const stop = async () => {
      const upload = await this.#sender.stop()
      await this.#finishing?.catch(() => {})
      if (upload === undefined || stays()) return undefined
      return (request: PrimitiveRequest) => this.#store.abort(upload, request)
    }
    const end = this.#journal ? this.#commitment.leave(stop) : this.#commitment.undo(stop)
    end
      .finally(() => {
        this.#buffer = Buffer.alloc(0)
      })
      .then(
        () => callback(error),
        (cleanupError) => callback(error ? withCleanupError(error, cleanupError) : cleanupError),
      )
  }

  #count(bytes: number): StorageError | undefined {
    const fault = this.#tooMany(this.#bytes + bytes)
    if (!fault) this.#bytes += bytes
    return fault
  }

  /** Takes a chunk from `from` on, while there is room. @returns up to where: its length when all is taken. */
  #take(chunk: Buffer, from: number): number {
    let at = from
    while (at < chunk.length) {
      if (this.#used === this.#plan.partBytes) {
        if (!this.#sender.hasRoom) return at
        this.#sender.send(this.#buffer, this.#used, false)
        this.#buffer = this.#sender.takeBuffer()
        this.#used = 0
      }
      at += this.#copy(chunk, at)
    }
    this.#options.onConsumed?.(chunk)
    return at
  }

  #takeAll(items: { chunk: Buffer }[], index: number, from: number, callback: (error?: Error | null) => void): void {
    for (let at = index; at < items.length; at++) {
      const { chunk } = items[at]!
      const taken = this.#take(chunk, at === index ? from : 0)
      if (taken < chunk.length) {
        this.#takeLater(items, at, taken, callback)
        return
      }
    }
    callback()
  }

  #takeLater(items: { chunk: Buffer }[], index: number, from: number, callback: (error?: Error | null) => void): void {
    const goOn = () => this.#takeAll(items, index, from, callback)
    // What is thrown after destroy() is its own abort, and would be taken for the stream's error.
    this.#sender.room().then(goOn, (error) => callback(this.destroyed ? null : error))
  }

  #copy(chunk: Buffer, from: number): number {
    const wanted = Math.min(this.#used + chunk.length - from, this.#plan.partBytes)
    if (wanted > this.#buffer.length) {
      const grown = Math.min(Math.max(wanted, this.#buffer.length * 4, FIRST_BUFFER_BYTES), this.#plan.partBytes)
      const buffer = Buffer.allocUnsafeSlow(grown)
      this.#buffer.copy(buffer, 0, 0, this.#used)
      this.#buffer = buffer
    }
    const copied = chunk.copy(this.#buffer, this.#used, from)
    this.#used += copied
    return copied
  }

  #tooMany(bytes: number): StorageError | undefined {
    const { size } = this.#options
    if (size !== undefined && bytes > size) {
      return this.#error('INVALID', 'write', `was given more than the ${size} bytes that it was to have`)
    }
    const { maxBytes, partBytes } = this.#plan
    if (bytes > maxBytes) {
      const advice = `its parts of ${partBytes} bytes carry at most ${maxBytes}; pass expectedSize for larger parts`
      return this.#error('INVALID', 'write', `is too large: ${advice}, or split the source`)
    }
    return undefined
  }

  async #finish(): Promise<void> {
    const { size, partRetry = PART_RETRY, callRetry = CALL_RETRY } = this.#options
    if (size !== undefined && this.#bytes !== size) {
      throw this.#error('INVALID', 'write', `ended after ${this.#bytes} of the ${size} bytes that it was to have`)
    }
    if (this.#sender.begun) {
      await this.#sender.room()
      this.#sender.send(this.#buffer, this.#used, true)
      const { upload, receipts } = await this.#sender.drain()
      await this.#commitment.commit((request) => this.#store.commit(upload, receipts, request), partRetry)
    } else {
      const body = this.#buffer.subarray(0, this.#used)
      await this.#journal?.ready()
      await this.#commitment.commit((request) => this.#store.putWhole(body, request), callRetry)
    }
    await this.#commitment.verify(this.#bytes)
  }

  #error(code: StorageErrorCode, operation: string, what: string): StorageError {
    const { adapter, key } = this.#options
    return new StorageError(`The object ${quoteKey(key)} ${what}.`, { code, adapter, operation, key })
  }
}

function canTakeUp<Upload, Receipt>(
  store: MultipartPrimitives<Upload, Receipt>,
): store is MultipartPrimitives<Upload, Receipt> & TakingUpStore<Upload, Receipt> {
  return store.takeUp !== undefined && store.nameOf !== undefined && store.checksumOf !== undefined
}
