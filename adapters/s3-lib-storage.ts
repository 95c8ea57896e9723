import { addAbortSignal, PassThrough, Writable } from 'node:stream'
import type { S3Client, UploadPartCommandInput } from '@aws-sdk/client-s3'
import type { Upload } from '@aws-sdk/lib-storage'
import { StorageError, withCleanupError } from './errors.ts'
import { quoteKey } from './keys.ts'
import { Commitment } from './multipart-commit.ts'
import { checkSizes, type PartPlan, planParts } from './multipart-plan.ts'
import type { PrimitiveRequest } from './multipart-sender.ts'
import { abortError, CALL_RETRY, PART_RETRY, type RetryPolicy, retry } from './retry.ts'
import type { Sdk } from './s3-client.ts'
import { ADAPTER } from './s3-errors.ts'
import type { Receipt, S3Write } from './s3-write.ts'
import type { WriteOptions } from './storage.ts'

type UploadClass = typeof Upload

export interface LibStorageOptions extends WriteOptions {
  key: string
  sdk: Sdk
  uploadClass: UploadClass
  client: S3Client
  partBytes?: number | undefined
  partRetry?: RetryPolicy | undefined
  callRetry?: RetryPolicy | undefined
}

/**
 * The other uploader: `Upload` of @aws-sdk/lib-storage cuts the stream into parts, numbers them and keeps several in
 * flight. What it does not promise is done around it. It gets a client whose `send` makes our own requests, each with
 * a signal, our retries and digests, so that we know of every request, its end and its outcome; its own abort, which
 * neither cancels what is in flight nor waits for it (https://github.com/aws/aws-sdk-js-v3/issues/5109), is not used.
 */
export class LibStorageWritable extends Writable {
  readonly #write: S3Write
  readonly #options: LibStorageOptions
  readonly #plan: PartPlan
  readonly #commitment: Commitment
  readonly #stopping = new AbortController()
  readonly #source = new PassThrough({ highWaterMark: 1024 * 1024 })
  readonly #inFlight = new Set<Promise<unknown>>()
  readonly #receipts = new Map<number, Receipt>()
  #begun: Promise<string> | undefined
  #done: Promise<unknown> | undefined
  #finishing: Promise<void> | undefined
  #bytes = 0

  /** @throws StorageError INVALID when `size` is more than the store takes, or no count of bytes. */
  constructor(write: S3Write, options: LibStorageOptions) {
    super({ highWaterMark: 256 * 1024, decodeStrings: true })
    this.#write = write
    this.#options = options
    this.#plan = planParts(write.rules, options)
    checkSizes(this.#plan, options, { adapter: ADAPTER, key: options.key })
    const { key, callRetry } = options
    this.#commitment = new Commitment(write, { adapter: ADAPTER, key, callRetry })
    this.#source.on('error', () => {})
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#bytes += chunk.length
    const fault = this.#tooMany()
    if (fault) {
      callback(fault)
      return
    }
    this.#start()
    // Upload keeps what it is given until its part is full, and our caller may use its chunk again before.
    const more = this.#source.write(Buffer.from(chunk))
    this.#options.onConsumed?.(chunk)
    if (more) callback()
    else this.#source.once('drain', callback)
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
    this.#commitment
      .undo(() => this.#stop())
      .then(
        () => callback(error),
        (cleanupError) => callback(error ? withCleanupError(error, cleanupError) : cleanupError),
      )
  }

  #start(): void {
    if (this.#done) return
    const { uploadClass, client } = this.#options
    const upload = new uploadClass({
      client: this.#client(client),
      params: { ...this.#write.target, Body: this.#source },
      partSize: this.#plan.partBytes,
      queueSize: this.#plan.inFlight,
      leavePartsOnError: true,
    })
    this.#done = upload.done()
    // It tells of a failed part only once its source has ended; `send` tells at once.
    this.#done.catch((error) => this.#fail(error))
  }

  async #finish(): Promise<void> {
    const { size } = this.#options
    if (size !== undefined && this.#bytes !== size) {
      throw this.#invalid(`ended after ${this.#bytes} of the ${size} bytes that it was to have`)
    }
    this.#start()
    this.#source.end()
    await this.#done
    await this.#commitment.verify(this.#bytes)
  }

  async #stop(): Promise<((request: PrimitiveRequest) => Promise<void>) | undefined> {
    this.#stopping.abort()
    this.#source.destroy(abortError())
    await this.#finishing?.catch(() => {})
    await this.#done?.catch(() => {})
    while (this.#inFlight.size > 0) await Promise.allSettled(this.#inFlight)
    const upload = await this.#begun?.catch(() => undefined)
    return upload === undefined ? undefined : (request) => this.#write.abort(upload, request)
  }

  #fail(error: unknown): void {
    if (!this.destroyed && !this.#finishing) this.destroy(error as Error)
  }

  /** The SDK's client, with our requests in place of its own. */
  #client(client: S3Client): S3Client {
    const send = (command: object) => {
      const sent = this.#send(command)
      this.#inFlight.add(sent)
      const forget = () => this.#inFlight.delete(sent)
      sent.then(forget, forget)
      return sent
    }
    return Object.create(client, { send: { value: send } })
  }

  #send(command: object): Promise<unknown> {
    const { sdk, partRetry = PART_RETRY, callRetry = CALL_RETRY } = this.#options
    const signal = this.#stopping.signal
    const input = (command as { input: UploadPartCommandInput }).input
    if (command instanceof sdk.PutObjectCommand) {
      return this.#commitment.commit((request) => this.#write.putWhole(input.Body as Buffer, request), callRetry)
    }
    if (command instanceof sdk.CreateMultipartUploadCommand) {
      const { settleSignal } = this.#commitment
      this.#begun = retry(() => this.#write.begin({ signal: settleSignal }), callRetry, { signal })
      return this.#begun.then((UploadId) => ({ UploadId }))
    }
    if (command instanceof sdk.UploadPartCommand) {
      return this.#sendPart(input.UploadId!, input.PartNumber!, input.Body as Buffer, partRetry).catch((error) => {
        this.#fail(error)
        throw error
      })
    }
    if (command instanceof sdk.CompleteMultipartUploadCommand) {
      const receipts = [...this.#receipts].sort(([a], [b]) => a - b).map(([, receipt]) => receipt)
      return this.#commitment.commit((request) => this.#write.commit(input.UploadId!, receipts, request), partRetry)
    }
    return Promise.reject(new TypeError(`lib-storage sent a ${command.constructor.name}, which was not foreseen`))
  }

  async #sendPart(upload: string, number: number, body: Buffer, policy: RetryPolicy): Promise<{ ETag?: string }> {
    const signal = this.#stopping.signal
    const offset = (number - 1) * this.#plan.partBytes
    const part = { number, offset, body, last: body.length < this.#plan.partBytes }
    const receipt = await retry(() => this.#write.putPart(upload, part, { signal }), policy, { signal })
    this.#receipts.set(number, receipt)
    return receipt.part.ETag === undefined ? {} : { ETag: receipt.part.ETag }
  }

  #tooMany(): StorageError | undefined {
    const { size } = this.#options
    if (size !== undefined && this.#bytes > size) {
      return this.#invalid(`was given more than the ${size} bytes that it was to have`)
    }
    const { maxBytes, partBytes } = this.#plan
    if (this.#bytes <= maxBytes) return undefined
    const advice = `its parts of ${partBytes} bytes carry at most ${maxBytes}; pass expectedSize for larger parts`
    return this.#invalid(`is too large: ${advice}, or split the source`)
  }

  #invalid(what: string): StorageError {
    const { key } = this.#options
    const message = `The object ${quoteKey(key)} ${what}.`
    return new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'write', key })
  }
}
