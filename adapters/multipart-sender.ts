import type { PartPlan } from './multipart-plan.ts'
import type { PartJournal } from './multipart-taking-up.ts'
import { CALL_RETRY, PART_RETRY, type RetryClock, type RetryPolicy, retry, throwIfAborted } from './retry.ts'

/** What every step of an upload is given. */
export interface PrimitiveRequest {
  /** Fires when the answer is not wanted any more. The primitive settles once its request's buffer is let go of. */
  signal: AbortSignal
}

/** The bytes of one part, and where in the object they stand. */
export interface PartBody {
  /** From 1. */
  number: number
  /** Of the part's first byte in the object. */
  offset: number
  /** A view of the ring: valid until the primitive has settled, and not a moment longer. */
  body: Buffer
  last: boolean
}

/** What the sender needs of an adapter; see `MultipartPrimitives` for the words. */
export interface PartStore<Upload, Receipt> {
  /** Begins an upload in parts. */
  begin(request: PrimitiveRequest): Promise<Upload>
  /** Sends one part. It settles only when nothing reads from the part's buffer any more. */
  putPart(upload: Upload, part: PartBody, request: PrimitiveRequest): Promise<Receipt>
}

export interface SenderOptions<Upload = unknown, Receipt = unknown> {
  plan: PartPlan
  /** Where the upload is one that another process can take up. */
  journal?: PartJournal<Upload, Receipt> | undefined
  /** Cuts off `begin` too, where a stop alone would leave an upload behind that nobody knows of. */
  settleSignal: AbortSignal
  /** Called once, when a part has failed for good. */
  onFailure: (error: unknown) => void
  partRetry?: RetryPolicy | undefined
  callRetry?: RetryPolicy | undefined
  clock?: RetryClock | undefined
}

/** Sends full buffers as numbered parts, a fixed number at a time, and owns the ring that they come from. */
export class PartSender<Upload, Receipt> {
  readonly #store: PartStore<Upload, Receipt>
  readonly #options: SenderOptions<Upload, Receipt>
  readonly #stopping = new AbortController()
  readonly #inFlight = new Set<Promise<void>>()
  readonly #free: Buffer[] = []
  readonly #receipts: Receipt[] = []
  #upload: Promise<Upload> | undefined
  #parts = 0
  #failure: { error: unknown } | undefined

  constructor(store: PartStore<Upload, Receipt>, options: SenderOptions<Upload, Receipt>) {
    this.#store = store
    this.#options = options
  }

  /** Whether any request was made. */
  get begun(): boolean {
    return this.#upload !== undefined
  }

  /** Fires at `stop`. */
  get stopSignal(): AbortSignal {
    return this.#stopping.signal
  }

  /** Whether a part can be sent now, with a buffer left to fill meanwhile. */
  get hasRoom(): boolean {
    return this.#inFlight.size < this.#options.plan.inFlight
  }

  /** Waits until there is room. @throws what the first failed part failed with; AbortError after a stop. */
  async room(): Promise<void> {
    while (!this.hasRoom && !this.#failure && !this.stopSignal.aborted) await Promise.race(this.#inFlight)
    if (this.#failure) throw this.#failure.error
    throwIfAborted(this.stopSignal)
  }

  /** An empty buffer of one part. Only while `hasRoom`, or the ring would grow. */
  takeBuffer(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#options.plan.partBytes)
  }

  /** Sends the first `length` bytes of `buffer` as the next part, and keeps the buffer. Needs `hasRoom`. */
  send(buffer: Buffer, length: number, last: boolean): void {
    const number = ++this.#parts
    const offset = (number - 1) * this.#options.plan.partBytes
    this.#upload ??= this.#begin()
    const sent = this.#put(this.#upload, { number, offset, body: buffer.subarray(0, length), last })
    const flight = sent.then(() => {
      this.#inFlight.delete(flight)
      this.#free.push(buffer)
    })
    this.#inFlight.add(flight)
  }

  /** Waits for every part. @throws what the first failed part failed with. */
  async drain(): Promise<{ upload: Upload; receipts: Receipt[] }> {
    await Promise.all(this.#inFlight)
    if (this.#failure) throw this.#failure.error
    if (this.#upload === undefined) throw new Error('no part was sent')
    return { upload: await this.#upload, receipts: this.#receipts }
  }

  /**
   * Signals every part, waits until each has let go of its buffer, and for the answer of `begin`.
   * @returns the upload that is now to be aborted, or undefined when none came to be.
   */
  async stop(): Promise<Upload | undefined> {
    this.#stopping.abort()
    await Promise.all(this.#inFlight)
    this.#free.length = 0
    return this.#upload?.catch(() => undefined)
  }

  #begin(): Promise<Upload> {
    const { settleSignal: signal, callRetry = CALL_RETRY, clock, journal } = this.#options
    const ask = <T>(call: (request: PrimitiveRequest) => Promise<T>, until: AbortSignal) =>
      retry(() => call({ signal: until }), callRetry, { signal: this.stopSignal, clock })
    // Not signalled by stop(): the store may have begun already, and only the answer says what to abort.
    const begin = () => ask((request) => this.#store.begin(request), signal)
    const upload = journal ? journal.open(begin, (call) => ask(call, this.stopSignal)) : begin()
    upload.catch(() => {})
    return upload
  }

  async #put(begun: Promise<Upload>, part: PartBody): Promise<void> {
    const { partRetry = PART_RETRY, clock, onFailure, journal } = this.#options
    const signal = this.stopSignal
    try {
      const upload = await begun
      const held = journal?.held(part)
      if (held === undefined) {
        await journal?.ready()
        throwIfAborted(signal)
      }
      const receipt =
        held ?? (await retry(() => this.#store.putPart(upload, part, { signal }), partRetry, { signal, clock }))
      this.#receipts[part.number - 1] = receipt
      if (held === undefined) journal?.stored(part, receipt)
    } catch (error) {
      if (this.#failure) return
      this.#failure = { error }
      if (!signal.aborted) onFailure(error)
    }
  }
}
