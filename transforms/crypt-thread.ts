import { createSecretKey } from 'node:crypto'
import { Duplex } from 'node:stream'
import type { Worker } from 'node:worker_threads'
import type { CryptOutput, CryptSetup, FrameFailure } from './crypt-job.ts'
import { TransformError } from './errors.ts'
import { giveBack, isMovable, lendMovable } from './lending.ts'
import { beginThread } from './thread.ts'

/** Memory of frames that is kept to be filled again. */
const KEPT_FRAMES = 2
/** Chunks that come while the thread is at work are given to it together. */
const GATHERED_BYTES = 1024 * 1024
/** Smaller chunks are copied. */
const MOVED_BYTES = 64 * 1024

/** Bytes of a chunk, on their way to the thread and back. */
export interface CryptInput {
  memory: ArrayBuffer
  offset: number
  length: number
}

export interface CryptRequest {
  /** With the first. */
  setup?: CryptSetup | undefined
  inputs: CryptInput[]
  /** Memory that frames may be written to. */
  free: ArrayBuffer[]
  nonces?: Map<number, Uint8Array> | undefined
  isLast: boolean
}

export interface CryptAnswer {
  /** Those of the request, which nobody looks at any more. */
  inputs: CryptInput[]
  outputs: CryptOutput[]
  /** With the last. */
  digest?: string
  failure?: Pick<FrameFailure, 'code' | 'frame' | 'isCut'>
}

/** How a thread is given its chunks. */
export interface CryptThreadOptions {
  /** Told of each chunk that is done with, so that its memory may be used again; not of one that was moved. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
  /** Chunks that are all of their memory are this stream's to keep: they are moved to the thread, and not copied. */
  ownsChunks?: boolean | undefined
}

/**
 * Begins the thread of a stream that is made a little later, as it takes a while until it is at work. It ends with the
 * stream; whoever makes none ends it.
 * @returns undefined where there is none to be had.
 */
export function beginCryptThread(): Worker | undefined {
  const thread = beginThread(import.meta.url, 'crypt-worker')
  // An 'error' that nobody listens to ends the process; the stream sees that it has ended, or how it ends.
  return thread?.on('error', () => {})
}

const hasEnded = (thread: Worker): boolean => thread.threadId === -1

/** A stream whose bytes are hashed, and sealed or opened, on a thread of its own. */
export interface CryptThread extends Duplex {
  /** SHA-256 of the stored bytes, hex in lower case. @throws Error before the stream has ended. */
  readonly digest: string
  /** Stored bytes. @throws Error before the stream has ended. */
  readonly bytes: number
}

type Callback = (error?: Error | null) => void

/**
 * What the three kinds have in common: one chunk after another to the thread, what it gives back in order, and memory
 * that goes to and fro instead of being copied.
 */
export abstract class CryptThreadStream extends Duplex implements CryptThread {
  readonly #options: CryptThreadOptions
  readonly #requestsAtOnce: number
  readonly #worker: Worker
  #setup: CryptSetup | undefined
  /** Of each request, the chunks that were moved with it; undefined for what was copied. */
  readonly #given: (Buffer | undefined)[][] = []
  readonly #kept: ArrayBuffer[] = []
  #blocked: Callback | undefined
  #ended: Callback | undefined
  #wanted = true
  #digest: string | undefined
  protected storedBytes = 0

  /**
   * @param requestsAtOnce that the thread has, or whose output waits to leave; each holds one chunk, or a few that came
   * together.
   * @param thread what `beginCryptThread` gave, which is the stream's from now on; it begins one when left out.
   * @throws TransformError THREAD where there is none to be had.
   */
  constructor(options: CryptThreadOptions, requestsAtOnce: number, thread?: Worker) {
    const worker = thread && !hasEnded(thread) ? thread : beginCryptThread()
    // Before there is a stream, which would be destroyed in vain.
    if (!worker) throw noThread()
    super({ readableHighWaterMark: 64 * 1024, writableHighWaterMark: GATHERED_BYTES })
    this.#options = options
    this.#requestsAtOnce = requestsAtOnce
    this.#worker = worker
    this.#worker.on('message', (answer: CryptAnswer) => {
      try {
        this.#answered(answer)
      } catch (error) {
        this.destroy(error as Error)
      }
    })
    this.#worker.on('error', (cause) => this.destroy(threadError(cause)))
    this.#worker.on('exit', () => this.destroy(this.#digest === undefined ? threadError(undefined) : undefined))
    // Last: who listens holds the process. As with Node's own streams, one that nobody writes to or reads does not.
    this.#worker.unref()
  }

  get digest(): string {
    if (this.#digest === undefined) throw new Error('The digest is known when the stream has ended, not before.')
    return this.#digest
  }

  get bytes(): number {
    if (this.#digest === undefined) throw new Error('The count is known when the stream has ended, not before.')
    return this.storedBytes
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.accept([chunk], callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    this.accept(
      items.map(({ chunk }) => chunk),
      callback,
    )
  }

  override _final(callback: Callback): void {
    this.#ended = callback
    this.send([], true)
  }

  override _read(): void {
    this.#wanted = true
    this.#unblock()
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.wipe()
    this.#worker.terminate().then(
      () => callback(error),
      () => callback(error),
    )
  }

  /** Chunks that have come. */
  protected accept(chunks: readonly Buffer[], callback: Callback): void {
    try {
      this.send(chunks, false)
    } catch (error) {
      callback(error as Error)
      return
    }
    this.#blocked = callback
    this.#unblock()
  }

  /** What the thread is to do; before anything is sent. The key stays where it is. */
  protected begin(setup: WithoutKey<CryptSetup>, key?: Uint8Array): void {
    this.#setup = { ...setup, ...(key ? { key: createSecretKey(key) } : {}) } as CryptSetup
    key?.fill(0)
  }

  protected send(chunks: readonly Buffer[], isLast: boolean): void {
    const given: (Buffer | undefined)[] = []
    const inputs: CryptInput[] = []
    for (let at = 0; at < chunks.length; ) {
      const chunk = chunks[at] as Buffer
      if (this.#mayMove(chunk)) {
        given.push(chunk)
        inputs.push({ memory: chunk.buffer as ArrayBuffer, offset: chunk.byteOffset, length: chunk.length })
        at += 1
      } else {
        const until = chunks.findIndex((next, i) => i > at && this.#mayMove(next))
        const small = chunks.slice(at, until < 0 ? chunks.length : until)
        given.push(undefined)
        inputs.push(this.#copyOf(small))
        at += small.length
      }
    }
    const bytes = inputs.reduce((sum, { length }) => sum + length, 0)
    const free = this.#kept.splice(0)
    const request = { setup: this.#setup, inputs, free, nonces: this.noncesOf(bytes, isLast), isLast }
    this.#setup = undefined
    this.#given.push(given)
    this.#worker.ref()
    this.#worker.postMessage(request satisfies CryptRequest, [...inputs.map(({ memory }) => memory), ...free])
  }

  /** Lets the memory of what leaves be used for what comes. */
  protected pushFrame({ memory, length }: CryptOutput): void {
    const chunk = Buffer.from(memory, 0, length)
    lendMovable(chunk, (back) => {
      if (this.#kept.length < KEPT_FRAMES && !this.destroyed) this.#kept.push(back)
      else back.transfer(0)
    })
    this.#wanted = this.push(chunk)
  }

  protected pushChunk(chunk: Buffer): void {
    this.#wanted = this.push(chunk)
  }

  /** An input that came back. @param chunk what it was, when it was moved; undefined for a copy. */
  protected inputBack(input: CryptInput, chunk: Buffer | undefined): void {
    if (!chunk || !giveBack(chunk, input.memory)) input.memory.transfer(0)
  }

  /** The nonces of what is sealed again as it was. */
  protected noncesOf(_bytes: number, _isLast: boolean): Map<number, Uint8Array> | undefined {
    return undefined
  }

  protected abstract outputs(outputs: readonly CryptOutput[]): void
  protected abstract failed(failure: NonNullable<CryptAnswer['failure']>): TransformError
  protected abstract wipe(): void

  #mayMove(chunk: Buffer): boolean {
    const isWhole = chunk.length >= MOVED_BYTES && chunk.length === chunk.buffer.byteLength
    return isMovable(chunk) || (this.#options.ownsChunks === true && isWhole)
  }

  #copyOf(chunks: readonly Buffer[]): CryptInput {
    const copy = Buffer.allocUnsafeSlow(chunks.reduce((sum, { length }) => sum + length, 0))
    let length = 0
    for (const chunk of chunks) {
      length += chunk.copy(copy, length)
      this.#options.onConsumed?.(chunk)
    }
    return { memory: copy.buffer as ArrayBuffer, offset: 0, length }
  }

  #answered({ inputs, outputs, digest, failure }: CryptAnswer): void {
    if (this.destroyed) return
    if (failure) throw this.failed(failure)
    const given = this.#given.shift() ?? []
    if (this.#given.length === 0) this.#worker.unref()
    for (const [i, input] of inputs.entries()) this.inputBack(input, given[i])
    this.outputs(outputs)
    if (digest === undefined) {
      this.#unblock()
      return
    }
    this.#digest = digest
    this.push(null)
    this.#ended?.()
  }

  #unblock(): void {
    if (!this.#wanted || this.#given.length >= this.#requestsAtOnce) return
    const callback = this.#blocked
    this.#blocked = undefined
    callback?.()
  }
}

type WithoutKey<T> = T extends { key: unknown } ? Omit<T, 'key'> : T

function noThread(): TransformError {
  return new TransformError(
    'THREAD',
    'No thread can be begun: a bundler has left crypt-worker.js out, or Node allows none. Keep millrace out of the bundle, give Node --allow-worker, or use the streams that need no thread.',
  )
}

function threadError(cause: unknown): TransformError {
  const reason = cause instanceof Error ? `: ${cause.message}` : ''
  return new TransformError('THREAD', `The thread that encrypts and hashes has ended${reason}. Run it again.`, {
    cause,
  })
}
