import { Transform, type TransformCallback } from 'node:stream'
import {
  endsShort,
  FRAME_OVERHEAD_BYTES,
  type Opener,
  type PreparedOpener,
  prepareOpener,
  prepareSealer,
  type Sealer,
  type SealOptions,
} from './container.ts'
import { TransformError } from './errors.ts'
import { checkMagic, HEADER_BYTES, parseHeader } from './header.ts'
import type { ReadKeys } from './keys.ts'
import { type LedgerSealer, prepareLedgerSealer } from './ledger.ts'

/**
 * A stream that seals bytes into a version 1 container (FORMAT.md, layer 3). It buffers nothing: ciphertext goes on as
 * plaintext comes. With a `ledger` it holds one frame, which goes on when the ledger has it.
 * @throws TransformError BAD_KEY, BAD_OPTION at once. The stream fails with LIMIT after 2^32 frames; with a ledger also
 * with DIFFERS where the bytes are not those that the ledger's frames were sealed from, and with WRONG_KEY.
 */
export function createEncrypt(options: SealOptions): Transform {
  const { ledger, onConsumed } = options
  return encryptStream(ledger ? prepareLedgerSealer(options, ledger) : prepareSealer(options), onConsumed)
}

/** The stream of `createEncrypt`. @param prepare gives what writes the container; it is called when the stream is made. */
export function encryptStream(
  prepare: () => Promise<Sealer | LedgerSealer>,
  onConsumed: SealOptions['onConsumed'],
): Transform {
  let sealer: Sealer | LedgerSealer | undefined
  return new Transform({
    construct(callback) {
      prepare().then((ready) => {
        sealer = ready
        this.push(ready.header)
        callback()
      }, callback)
    },
    transform(chunk: Buffer, _encoding, callback) {
      settle(callback, () => {
        sealer?.update(chunk, (sealed) => this.push(sealed))
        onConsumed?.(chunk)
      })
    },
    flush(callback) {
      settle(callback, () => sealer?.final((sealed) => this.push(sealed)))
    },
    destroy(error, callback) {
      sealer?.wipe()
      callback(error)
    },
  })
}

/** What `createDecrypt` takes beside the keys. */
export interface DecryptOptions {
  /** Told of each chunk that has been copied, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
}

/**
 * A stream that opens a version 1 container. A frame's plaintext leaves only after its tag verified; it holds one
 * frame. Every end that is not the writer's is an error.
 * @throws TransformError BAD_KEY at once. The stream fails with NOT_SEALED, UNSUPPORTED, BAD_HEADER, WRONG_KEY,
 * AUTH_FAILED or TRUNCATED.
 */
export function createDecrypt(material: ReadKeys, options: DecryptOptions = {}): Transform {
  return decryptStream(prepareOpener(material), options)
}

/** `createDecrypt` with material that was checked. */
export function decryptStream(prepare: PreparedOpener, { onConsumed }: DecryptOptions): Transform {
  return new DecryptStream(prepare, onConsumed)
}

class DecryptStream extends Transform {
  readonly #prepare: PreparedOpener
  readonly #onConsumed: ((chunk: Buffer) => void) | undefined
  #opener: Opener | undefined
  // The header first, then one sealed frame, reused: what leaves is always a buffer of its own.
  #hold = Buffer.alloc(HEADER_BYTES)
  #held = 0
  #frame = 0
  #frameBytes = 0

  constructor(prepare: PreparedOpener, onConsumed: ((chunk: Buffer) => void) | undefined) {
    super()
    this.#prepare = prepare
    this.#onConsumed = onConsumed
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    if (this.#opener) settle(callback, () => this.#frames(chunk, 0))
    else this.#header(chunk, callback)
  }

  override _flush(callback: TransformCallback): void {
    settle(callback, () => {
      if (!this.#opener) {
        parseHeader(this.#hold.subarray(0, this.#held))
        throw new TransformError('TRUNCATED', 'The container ends inside its header.')
      }
      if (this.#held < FRAME_OVERHEAD_BYTES) {
        throw endsShort(this.#frame, this.#held > 0)
      }
      this.#open()
    })
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#opener?.wipe()
    callback(error)
  }

  #header(chunk: Buffer, callback: TransformCallback): void {
    const take = Math.min(chunk.length, HEADER_BYTES - this.#held)
    chunk.copy(this.#hold, this.#held, 0, take)
    this.#held += take
    if (this.#held < HEADER_BYTES) {
      // So that a stream of another kind is refused at its first bytes, not when 64 have come.
      settle(callback, () => {
        checkMagic(this.#hold.subarray(0, this.#held))
      })
      return
    }
    let header: ReturnType<typeof parseHeader>
    try {
      header = parseHeader(this.#hold)
    } catch (error) {
      callback(error as Error)
      return
    }
    this.#prepare(header).then((opener) => {
      this.#opener = opener
      this.#frameBytes = header.frameBytes + FRAME_OVERHEAD_BYTES
      this.#hold = Buffer.allocUnsafeSlow(this.#frameBytes)
      this.#held = 0
      settle(callback, () => this.#frames(chunk, take))
    }, callback)
  }

  #frames(chunk: Buffer, from: number): void {
    let at = from
    while (at < chunk.length) {
      const take = Math.min(chunk.length - at, this.#frameBytes - this.#held)
      chunk.copy(this.#hold, this.#held, at, at + take)
      this.#held += take
      at += take
      if (this.#held === this.#frameBytes) this.#open()
    }
    this.#onConsumed?.(chunk)
  }

  #open(): void {
    const plain = (this.#opener as Opener).open(this.#frame, this.#hold.subarray(0, this.#held))
    if (plain.length > 0) this.push(plain)
    this.#frame += 1
    this.#held = 0
  }
}

function settle(callback: TransformCallback, work: () => void): void {
  try {
    work()
  } catch (error) {
    callback(error as Error)
    return
  }
  callback()
}
