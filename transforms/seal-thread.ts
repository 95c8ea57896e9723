import { timingSafeEqual } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Worker } from 'node:worker_threads'
import {
  authFailed,
  endsShort,
  NONCE_BYTES,
  type PreparedOpener,
  prepareObject,
  prepareOpener,
  type SealedObject,
  Sealer,
  type SealOptions,
  TAG_BYTES,
  tooManyFrames,
} from './container.ts'
import type { CryptOutput } from './crypt-job.ts'
import {
  beginCryptThread,
  type CryptAnswer,
  type CryptInput,
  type CryptThread,
  type CryptThreadOptions,
  CryptThreadStream,
} from './crypt-thread.ts'
import { decryptStream, encryptStream } from './encrypt.ts'
import { TransformError } from './errors.ts'
import { createHashTee } from './hash-tee.ts'
import { checkMagic, HEADER_BYTES, MAC_OFFSET, parseHeader } from './header.ts'
import type { ReadKeys } from './keys.ts'
import { differs, type FrameLedger, LedgerSealer, prepareAgain } from './ledger.ts'
import { giveBack, lendMovable } from './lending.ts'

/** Frames of compression that a thread has: it is faster than those that give them. */
const SEALED_AT_ONCE = 1
/** Reads of a store that a thread has, of a MiB or two each: nothing waits for it between them. */
const OPENED_AT_ONCE = 2

type Callback = (error?: Error | null) => void
type Failure = NonNullable<CryptAnswer['failure']>

/**
 * `createEncrypt` and `createHashTee` in one, on a thread of its own: for what is large enough to be worth one. What
 * leaves are whole frames, lent.
 * @throws TransformError BAD_KEY, BAD_OPTION at once, and THREAD where there is none to be had. The stream fails as that
 * of `createEncrypt` does, and with THREAD.
 */
export function createSealThread(options: SealOptions & CryptThreadOptions): CryptThread {
  return new SealThread(preparing(options), options)
}

function preparing(options: SealOptions): () => Promise<SealedObject> {
  const { ledger } = options
  return ledger ? prepareAgain(options, ledger) : prepareObject(options)
}

/**
 * `createHashTee` and `createDecrypt` in one, on a thread of its own. What leaves are whole frames, lent.
 * @throws TransformError BAD_KEY at once, and THREAD where there is none to be had. The stream fails as that of
 * `createDecrypt` does, and with THREAD.
 */
export function createOpenThread(material: ReadKeys, options: CryptThreadOptions = {}): CryptThread {
  return new OpenThread(prepareOpener(material), options)
}

/**
 * `createHashTee` on a thread of its own.
 * @throws TransformError THREAD where there is none to be had. The stream can fail with it, too.
 */
export function createHashThread(options: CryptThreadOptions = {}): CryptThread {
  return new HashThread(options)
}

/** What encrypts or decrypts, and hashes what is stored, in one stream or in two. */
export interface SealingStage {
  readonly transforms: readonly Duplex[]
  /** SHA-256 and length of the stored bytes. @throws Error before the stream has ended. */
  totals(): Pick<CryptThread, 'digest' | 'bytes'>
}

/** What will encrypt and hash one object. */
export interface Sealing {
  /** Makes the streams, once, on a thread of their own where one is to be had, or on this one. */
  stage(onThread: boolean): SealingStage
  /** Begins to derive the keys of a password, which takes a seventh of a second of another core, before the streams are made. */
  deriveAhead(): void
  /** Begins the thread before the streams are made on one. */
  beginAhead(): void
  /** Lets go of what was derived and begun ahead, where no streams were made of it. */
  discard(): void
}

/**
 * Checks the options of a writer.
 * @param options undefined: nothing is encrypted.
 * @throws TransformError BAD_KEY, BAD_OPTION.
 */
export function prepareSealing(options: SealOptions | undefined, threadOptions: CryptThreadOptions): Sealing {
  const prepare = options && preparing(options)
  let ahead: Promise<SealedObject> | undefined
  const threads = new ThreadAhead()
  const take = () => {
    const object = ahead ?? (prepare as () => Promise<SealedObject>)()
    ahead = undefined
    return object
  }
  return {
    stage(onThread) {
      const begun = onThread ? (threads.take() ?? beginCryptThread()) : undefined
      if (begun) {
        const thread = options
          ? new SealThread(take, { ...options, ...threadOptions }, begun)
          : new HashThread(threadOptions, begun)
        return { transforms: [thread], totals: () => thread }
      }
      const tee = createHashTee()
      const encrypt = options && encryptStream(() => take().then(sealerOf), threadOptions.onConsumed)
      return { transforms: [...(encrypt ? [encrypt] : []), tee], totals: () => tee }
    },
    deriveAhead() {
      ahead ??= prepare?.()
      // It is told to whoever takes it.
      ahead?.catch(() => {})
    },
    beginAhead: () => threads.begin(),
    discard() {
      threads.end()
      ahead?.then(wipeKeys, () => {})
      ahead = undefined
    },
  }

  function sealerOf(object: SealedObject): Sealer | LedgerSealer {
    const { header, frameBytes, keys } = object
    return options?.ledger ? new LedgerSealer(object, options.ledger) : new Sealer(header, frameBytes, keys)
  }
}

/** A thread that is begun before the stream that it is for is made. */
export class ThreadAhead {
  #thread: Worker | undefined

  /** Begins one where there is none. */
  begin(): void {
    this.#thread ??= beginCryptThread()
  }

  /** For who ends it; undefined where none was begun. */
  take(): Worker | undefined {
    const thread = this.#thread
    this.#thread = undefined
    return thread
  }

  /** Ends the one that nobody has taken. */
  end(): void {
    void this.take()?.terminate()
  }
}

function wipeKeys({ keys }: SealedObject): void {
  keys.header.fill(0)
  keys.frames.fill(0)
}

/**
 * The streams that hash an object as it is stored, and open it.
 * @param prepared what opens it; undefined: it is not encrypted.
 * @param begun a thread that was begun ahead.
 */
export function openingStage(
  prepared: PreparedOpener | undefined,
  { onThread, begun, ...threadOptions }: CryptThreadOptions & { onThread: boolean; begun?: Worker | undefined },
): SealingStage {
  const worker = onThread ? (begun ?? beginCryptThread()) : undefined
  if (worker) {
    const thread = prepared ? new OpenThread(prepared, threadOptions, worker) : new HashThread(threadOptions, worker)
    return { transforms: [thread], totals: () => thread }
  }
  const tee = createHashTee()
  return { transforms: [tee, ...(prepared ? [decryptStream(prepared, threadOptions)] : [])], totals: () => tee }
}

class SealThread extends CryptThreadStream {
  readonly #prepare: () => Promise<SealedObject>
  readonly #ledger: FrameLedger | undefined
  #object: SealedObject | undefined
  #frameBytes = 0
  /** Bytes that were given to the thread. */
  #plain = 0
  /** The next frame to leave. */
  #frame = 0

  constructor(
    prepare: () => Promise<SealedObject>,
    options: CryptThreadOptions & Pick<SealOptions, 'ledger'>,
    begun?: Worker,
  ) {
    super(options, SEALED_AT_ONCE, begun)
    this.#prepare = prepare
    this.#ledger = options.ledger
  }

  override _construct(callback: Callback): void {
    this.#prepare().then((object) => {
      this.#object = object
      if (this.destroyed) this.wipe()
      const { header, frameBytes, keys } = object
      this.#frameBytes = frameBytes
      keys.header.fill(0)
      const mac = header.subarray(MAC_OFFSET)
      this.begin({ job: 'seal', header: Uint8Array.from(header), mac: Uint8Array.from(mac), frameBytes }, keys.frames)
      this.storedBytes = header.length
      this.push(header)
      callback()
    }, callback)
  }

  protected override noncesOf(bytes: number, isLast: boolean): Map<number, Uint8Array> | undefined {
    const begun = Math.ceil(this.#plain / this.#frameBytes)
    this.#plain += bytes
    if (!this.#ledger) return undefined
    const last = Math.floor(this.#plain / this.#frameBytes)
    // Also where the frame itself could be the same: what is to follow it was sealed, and would be missing.
    if (isLast && this.#ledger.seal(last + 1)) throw differs(last, this.#frameBytes)
    const nonces = new Map<number, Uint8Array>()
    for (let frame = begun; frame <= last; frame++) {
      const seal = this.#ledger.seal(frame)
      if (seal) nonces.set(frame, Uint8Array.from(seal.subarray(0, NONCE_BYTES)))
    }
    return nonces
  }

  protected override outputs(outputs: readonly CryptOutput[]): void {
    for (const output of outputs) {
      if (this.#ledger) this.#takeDown(this.#ledger, output)
      this.#frame += 1
      this.storedBytes += output.length
      this.pushFrame(output)
    }
  }

  protected override failed(): TransformError {
    return tooManyFrames(this.#frameBytes)
  }

  protected override wipe(): void {
    if (this.#object) wipeKeys(this.#object)
  }

  /** Before any byte of the frame leaves. */
  #takeDown(ledger: FrameLedger, { memory, length }: CryptOutput): void {
    const sealed = Buffer.from(memory, 0, length)
    const tag = sealed.subarray(length - TAG_BYTES)
    const before = ledger.seal(this.#frame)
    if (!before) {
      ledger.add(this.#frame, Buffer.concat([sealed.subarray(0, NONCE_BYTES), tag]))
    } else if (!timingSafeEqual(tag, before.subarray(NONCE_BYTES))) {
      sealed.fill(0)
      throw differs(this.#frame, this.#frameBytes)
    }
  }
}

class OpenThread extends CryptThreadStream {
  readonly #prepare: PreparedOpener
  #head = Buffer.alloc(0)
  /** Chunks that came before the header was whole. */
  #early: Buffer[] | undefined = []

  constructor(prepare: PreparedOpener, options: CryptThreadOptions, begun?: Worker) {
    super(options, OPENED_AT_ONCE, begun)
    this.#prepare = prepare
  }

  protected override accept(chunks: readonly Buffer[], callback: Callback): void {
    if (!this.#early) {
      super.accept(chunks, callback)
      return
    }
    this.#early.push(...chunks)
    for (const chunk of chunks) {
      this.#head = Buffer.concat([this.#head, chunk.subarray(0, HEADER_BYTES - this.#head.length)])
    }
    try {
      if (this.#head.length === HEADER_BYTES) this.#open(parseHeader(this.#head), callback)
      else {
        // So that a stream of another kind is refused at its first bytes, not when 64 have come.
        checkMagic(this.#head)
        callback()
      }
    } catch (error) {
      callback(error as Error)
    }
  }

  override _final(callback: Callback): void {
    if (!this.#early) {
      super._final(callback)
      return
    }
    try {
      parseHeader(this.#head)
      callback(new TransformError('TRUNCATED', 'The container ends inside its header.'))
    } catch (error) {
      callback(error as Error)
    }
  }

  protected override send(chunks: readonly Buffer[], isLast: boolean): void {
    for (const { length } of chunks) this.storedBytes += length
    super.send(chunks, isLast)
  }

  protected override outputs(outputs: readonly CryptOutput[]): void {
    for (const output of outputs) {
      if (output.length > 0) this.pushFrame(output)
    }
  }

  protected override failed({ code, frame, isCut }: Failure): TransformError {
    return code === 'TRUNCATED' ? endsShort(frame, isCut) : authFailed(frame)
  }

  protected override wipe(): void {}

  #open(header: ReturnType<typeof parseHeader>, callback: Callback): void {
    this.#prepare(header).then((opener) => {
      const key = opener.takeFrameKey()
      const { frameBytes, mac } = header
      this.begin({ job: 'open', headerBytes: HEADER_BYTES, mac: Uint8Array.from(mac), frameBytes }, key)
      const early = this.#early ?? []
      this.#early = undefined
      if (!this.destroyed) super.accept(early, callback)
    }, callback)
  }
}

class HashThread extends CryptThreadStream {
  constructor(options: CryptThreadOptions, begun?: Worker) {
    super(options, SEALED_AT_ONCE, begun)
    this.begin({ job: 'hash' })
  }

  protected override inputBack({ memory, offset, length }: CryptInput, was: Buffer | undefined): void {
    const chunk = Buffer.from(memory, offset, length)
    this.storedBytes += length
    if (was) {
      lendMovable(chunk, (back) => {
        if (!giveBack(was, back)) back.transfer(0)
      })
    }
    this.pushChunk(chunk)
  }

  protected override outputs(): void {}

  protected override failed(): TransformError {
    return new TransformError('THREAD', 'The thread that hashes failed. Run it again.')
  }

  protected override wipe(): void {}
}
