import { addAbortSignal, Readable, Writable } from 'node:stream'
import { StorageError } from '../errors.ts'

type Callback = (error?: Error | null) => void

/** What holds bytes back until they may pass. */
export interface Pace {
  /** No piece is larger. */
  readonly pieceBytes: number
  /** Resolves when `bytes` may pass; rejects when the signal fires. */
  admit(bytes: number, signal: AbortSignal): Promise<void>
}

export interface ForwardingOptions {
  /** The caller's own. The stream beneath is opened without it: it is destroyed by the one above. */
  signal?: AbortSignal | undefined
  /** Whose the streams are, for messages. */
  adapter: string
  pace?: Pace | undefined
  /** Told of bytes that the stream beneath has taken, or that it gave. */
  onBytes?: ((bytes: number) => void) | undefined
}

export interface ForwardingWriteOptions extends ForwardingOptions {
  /** See WriteOptions: told of the chunk as it was written here, also where it went on in pieces. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
}

/**
 * Writes to the stream of another storage, and is for its caller what that stream would be: `finish` is its finish,
 * `destroy()` destroys it and waits for its `close`, its errors are this one's. A write is answered when the stream
 * beneath has answered it, so back-pressure and what a caller may do with its chunks stay as they are.
 */
export class ForwardingWritable extends Writable {
  readonly #inner: Writable
  readonly #options: ForwardingWriteOptions
  readonly #abort = new AbortController()
  /** The pieces that the stream beneath has yet to consume, with what they are of. */
  readonly #pieces = new WeakMap<Buffer, { chunk: Buffer; left: number }>()

  /** @param open opens the stream beneath, with the `onConsumed` that it is given. */
  constructor(open: (onConsumed: ((chunk: Buffer) => void) | undefined) => Writable, options: ForwardingWriteOptions) {
    let consumed: (piece: Buffer) => void = () => {}
    const inner = open(options.onConsumed && ((piece) => consumed(piece)))
    super({ highWaterMark: inner.writableHighWaterMark, decodeStrings: true })
    consumed = (piece) => this.#consumed(piece)
    this.#inner = inner
    this.#options = options
    inner.on('error', (error) => this.destroy(error))
    inner.on('close', () => {
      if (!inner.writableFinished) this.destroy(inner.errored ?? cutShort(options.adapter, 'write'))
    })
    // Last: a signal that has fired already destroys at once, and _destroy needs the fields above.
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#send([chunk], callback)
  }

  override _writev(items: { chunk: Buffer }[], callback: Callback): void {
    this.#send(
      items.map((item) => item.chunk),
      callback,
    )
  }

  override _final(callback: Callback): void {
    this.#inner.once('finish', () => callback())
    this.#inner.end()
  }

  /** Does nothing once the stream beneath has committed: its object stays, so this stream has to finish as well. */
  override destroy(error?: Error): this {
    return this.#inner.writableFinished && !this.writableFinished ? this : super.destroy(error)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#abort.abort()
    const inner = this.#inner
    const done = () => callback(error ?? inner.errored)
    inner.destroy(error ?? undefined)
    if (inner.closed) done()
    else inner.once('close', done)
  }

  #send(chunks: Buffer[], callback: Callback): void {
    const { pace } = this.#options
    if (pace) {
      this.#sendPaced(chunks, pace).then(
        () => callback(),
        (error) => this.#refuse(error, callback),
      )
      return
    }
    const lengths = chunks.map((chunk) => chunk.length)
    let left = chunks.length
    let failed = false
    this.#inner.cork()
    for (const [index, chunk] of chunks.entries()) {
      this.#inner.write(chunk, (error) => {
        if (failed) return
        if (error) {
          failed = true
          this.#refuse(error, callback)
          return
        }
        this.#options.onBytes?.(lengths[index]!)
        if (--left === 0) callback()
      })
    }
    this.#inner.uncork()
  }

  async #sendPaced(chunks: Buffer[], pace: Pace): Promise<void> {
    for (const chunk of chunks) {
      // All of them at first: a chunk whose last piece is consumed may have no bytes any more.
      for (const piece of this.#split(chunk, pace.pieceBytes)) {
        const { length } = piece
        if (length > 0) await pace.admit(length, this.#abort.signal)
        await this.#writeInner(piece)
        this.#options.onBytes?.(length)
      }
    }
  }

  #writeInner(piece: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#inner.write(piece, (error) => (error ? reject(error) : resolve()))
    })
  }

  #split(chunk: Buffer, pieceBytes: number): Buffer[] {
    if (chunk.length <= pieceBytes) return [chunk]
    const pieces = piecesOf(chunk, pieceBytes)
    if (this.#options.onConsumed) {
      const whole = { chunk, left: pieces.length }
      for (const piece of pieces) this.#pieces.set(piece, whole)
    }
    return pieces
  }

  #consumed(piece: Buffer): void {
    const whole = this.#pieces.get(piece)
    this.#pieces.delete(piece)
    if (!whole) this.#options.onConsumed?.(piece)
    else if (--whole.left === 0) this.#options.onConsumed?.(whole.chunk)
  }

  #refuse(error: Error, callback: Callback): void {
    // What went wrong first: a write after it is refused with nothing but that the stream is destroyed.
    const first = this.errored ?? this.#inner.errored
    // An error given here after destroy() without one would become the stream's own.
    callback(this.destroyed ? first : (first ?? error))
  }
}

/**
 * Reads from the stream of another storage, and is for its caller what that stream would be: it asks for bytes only
 * when its reader wants some, ends when that one ends, fails as it fails, and takes it along when it is destroyed.
 */
export class ForwardingReadable extends Readable {
  readonly #inner: Readable
  readonly #options: ForwardingOptions
  readonly #abort = new AbortController()
  #wanted = false
  #wake: (() => void) | undefined
  /** A chunk is on its way in pieces. */
  #busy = false
  #ended = false

  constructor(inner: Readable, options: ForwardingOptions) {
    super({ highWaterMark: inner.readableHighWaterMark })
    this.#inner = inner
    this.#options = options
    // Before the listener, which would start it.
    inner.pause()
    inner.on('data', (chunk: Buffer) => this.#take(chunk))
    inner.on('end', () => {
      this.#ended = true
      if (!this.#busy) this.push(null)
    })
    inner.on('error', (error) => this.destroy(error))
    inner.on('close', () => {
      if (!this.#ended) this.destroy(inner.errored ?? cutShort(options.adapter, 'read'))
    })
    if (options.signal) addAbortSignal(options.signal, this)
  }

  override _read(): void {
    this.#wanted = true
    this.#wake?.()
    if (!this.#busy) this.#inner.resume()
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#abort.abort()
    const inner = this.#inner
    const done = () => callback(error ?? inner.errored)
    inner.destroy(error ?? undefined)
    if (inner.closed) done()
    else inner.once('close', done)
  }

  #take(chunk: Buffer): void {
    if (this.destroyed) return
    const { pace } = this.#options
    if (!pace) {
      if (!this.#give(chunk)) this.#inner.pause()
      return
    }
    this.#busy = true
    this.#inner.pause()
    this.#givePaced(chunk, pace).then(
      () => {
        this.#busy = false
        if (this.destroyed) return
        if (this.#ended) this.push(null)
        else if (this.#wanted) this.#inner.resume()
      },
      (error) => this.destroy(error),
    )
  }

  async #givePaced(chunk: Buffer, pace: Pace): Promise<void> {
    for (const piece of piecesOf(chunk, pace.pieceBytes)) {
      if (!this.#wanted) await new Promise<void>((resolve) => (this.#wake = resolve))
      this.#wake = undefined
      await pace.admit(piece.length, this.#abort.signal)
      if (this.destroyed) return
      this.#give(piece)
    }
  }

  #give(chunk: Buffer): boolean {
    this.#options.onBytes?.(chunk.length)
    // push may ask for more before it returns.
    this.#wanted = false
    if (this.push(chunk)) this.#wanted = true
    return this.#wanted
  }
}

function piecesOf(chunk: Buffer, pieceBytes: number): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0; at < chunk.length; at += pieceBytes) pieces.push(chunk.subarray(at, at + pieceBytes))
  return pieces
}

/** A stream that closed and gave neither its end nor an error. */
export function cutShort(adapter: string, operation: string): StorageError {
  const message = `The stream of the ${adapter} storage closed before its end, without an error.`
  return new StorageError(message, { code: 'UNAVAILABLE', adapter, operation })
}
