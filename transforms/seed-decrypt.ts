import { createDecipheriv, randomBytes } from 'node:crypto'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { TAG_BYTES } from './container.ts'
import { TransformError } from './errors.ts'
import { MAGIC } from './header.ts'
import { checkReadKeys, listOf } from './keys.ts'
import { deriveSeedKey, SEED_HEADER_BYTES, SEED_MAX_PLAIN_BYTES, SEED_OVERHEAD_BYTES, SEED_SALT_BYTES } from './seed.ts'

const BLOCK_BYTES = 64 * 1024

type Callback = (error?: Error | null) => void
type Decipher = ReturnType<typeof newDecipher>

/** What `createSeedDecrypt` takes. */
export interface SeedDecryptOptions {
  /** Tried in order, each as typed and then in NFC where that differs; none empty or holding a NUL. */
  password: string | readonly string[]
  /**
   * Where the temporary file goes; `os.tmpdir()` when left out. It takes as much room as the object, in memory where
   * the folder is a tmpfs.
   */
  tempFolder?: string | undefined
  /** Told of each chunk that has been copied, so that its memory may be used again. */
  onConsumed?: ((chunk: Buffer) => void) | undefined
}

/**
 * A stream that opens an object in the original service's layout. The layout's only tag stands at its end, so the
 * ciphertext goes into a temporary file, without a name and readable for its owner only, and the plaintext leaves when
 * the whole has verified; no plaintext touches the disk. Memory is a few blocks, whatever the size. The first password
 * is tried as the bytes come, each further one costs a pass over the file.
 * @throws TransformError BAD_KEY at once. The stream fails with UNSUPPORTED for a millrace container, TRUNCATED,
 * AUTH_FAILED (no password fits, or the object is damaged: this layout cannot tell), LIMIT, or SPOOL when the
 * temporary file fails.
 */
export function createSeedDecrypt(options: SeedDecryptOptions): Duplex {
  return new SeedDecryptStream(readPasswords(options.password), options)
}

function readPasswords(password: string | readonly string[]): string[] {
  const typed = listOf(password)
  if (typed.length === 0) {
    throw new TransformError('BAD_KEY', 'Give a password to decrypt with; the original layout knows no other key.')
  }
  checkReadKeys({ password: typed })
  return [...new Set(typed.flatMap((one) => [one, one.normalize('NFC')]))]
}

class SeedDecryptStream extends Duplex {
  readonly #passwords: readonly string[]
  readonly #spool: Spool
  readonly #onConsumed: ((chunk: Buffer) => void) | undefined
  readonly #header = Buffer.alloc(SEED_HEADER_BYTES)
  // The last 16 bytes stay here until more follow them: they may be the tag.
  readonly #hold = Buffer.allocUnsafeSlow(BLOCK_BYTES + TAG_BYTES)
  #held = 0
  #bytes = 0
  /** Of the first password; its tag is checked when the end has come. */
  #first: Attempt | undefined
  #verified: { decipher: Decipher; tag: Buffer } | undefined
  #emitted = 0
  #wanted = false

  constructor(passwords: readonly string[], options: SeedDecryptOptions) {
    super()
    this.#passwords = passwords
    this.#spool = new Spool(options.tempFolder ?? tmpdir())
    this.#onConsumed = options.onConsumed
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    try {
      const at = this.#takeHeader(chunk)
      if (chunk.length - at > this.#hold.length - this.#held) {
        this.#takeBlocks(chunk, at).then(() => callback(), callback)
        return
      }
      this.#held += chunk.copy(this.#hold, this.#held, at)
      this.#onConsumed?.(chunk)
    } catch (error) {
      callback(error as Error)
      return
    }
    callback()
  }

  override _final(callback: Callback): void {
    this.#verify().then((verified) => {
      if (!this.destroyed) this.#verified = verified
      callback()
      if (this.#wanted && this.#verified) void this.#emit()
    }, callback)
  }

  override _read(): void {
    this.#wanted = true
    if (this.#verified) void this.#emit()
  }

  override _destroy(error: Error | null, callback: Callback): void {
    this.#first = undefined
    this.#verified = undefined
    this.#spool.close().then(
      () => callback(error),
      (failure) => callback(error ?? failure),
    )
  }

  #takeHeader(chunk: Buffer): number {
    const taken = chunk.copy(this.#header, Math.min(this.#bytes, SEED_HEADER_BYTES))
    const before = this.#bytes
    this.#bytes += chunk.length
    if (before < MAGIC.length && this.#bytes >= MAGIC.length && this.#header.subarray(0, MAGIC.length).equals(MAGIC)) {
      throw new TransformError(
        'UNSUPPORTED',
        'This is a millrace container, not an object in the original layout. Use createDecrypt.',
      )
    }
    if (this.#bytes - SEED_OVERHEAD_BYTES > SEED_MAX_PLAIN_BYTES) {
      throw new TransformError(
        'LIMIT',
        `The object is longer than the original layout can be, ${SEED_MAX_PLAIN_BYTES + SEED_OVERHEAD_BYTES} bytes: it is of another program, or damaged.`,
      )
    }
    return taken
  }

  async #takeBlocks(chunk: Buffer, offset: number): Promise<void> {
    let at = offset
    while (at < chunk.length) {
      if (this.#held === this.#hold.length) await this.#store(BLOCK_BYTES)
      const taken = chunk.copy(this.#hold, this.#held, at)
      this.#held += taken
      at += taken
    }
    this.#onConsumed?.(chunk)
  }

  /** Moves `length` bytes of ciphertext from the hold into the spool. */
  async #store(length: number): Promise<void> {
    const block = this.#hold.subarray(0, length)
    this.#first ??= await this.#attempt(this.#passwords[0] as string)
    const written = this.#spool.write(block)
    discard(this.#first.check.update(block))
    await written
    this.#held = this.#hold.copy(this.#hold, 0, length, this.#held)
  }

  async #attempt(password: string): Promise<Attempt> {
    const key = await deriveSeedKey(password, this.#header)
    const nonce = this.#header.subarray(SEED_SALT_BYTES)
    const attempt = { check: newDecipher(key, nonce), open: newDecipher(key, nonce) }
    key.fill(0)
    return attempt
  }

  /** @returns what decrypts the spool, once the tag has verified. */
  async #verify(): Promise<{ decipher: Decipher; tag: Buffer }> {
    if (this.#bytes < SEED_OVERHEAD_BYTES) {
      throw new TransformError(
        'TRUNCATED',
        `The object is ${this.#bytes} bytes long, and none in the original layout is shorter than ${SEED_OVERHEAD_BYTES}: it was cut. Fetch it again, or use another snapshot.`,
      )
    }
    await this.#store(this.#held - TAG_BYTES)
    const tag = Buffer.from(this.#hold.subarray(0, TAG_BYTES))
    const first = this.#first as Attempt
    if (verifies(first.check, tag)) return { decipher: first.open, tag }
    for (const password of this.#passwords.slice(1)) {
      const { check, open } = await this.#attempt(password)
      for (let at = 0; at < this.#spool.size; at += BLOCK_BYTES)
        discard(check.update(await this.#spool.read(this.#hold, at)))
      if (verifies(check, tag)) return { decipher: open, tag }
    }
    throw new TransformError(
      'AUTH_FAILED',
      'Wrong password, or the object is damaged; the original layout cannot tell them apart. Check the password, then fetch the object again, or use another snapshot.',
    )
  }

  async #emit(): Promise<void> {
    try {
      const block = await this.#spool.read(this.#hold, this.#emitted)
      if (!this.#verified) return
      const { decipher, tag } = this.#verified
      const plain = decipher.update(block)
      this.#emitted += block.length
      const last = this.#emitted === this.#spool.size
      if (last) {
        if (!verifies(decipher, tag)) {
          throw new TransformError('SPOOL', 'The temporary file changed while it was read. Look after that disk.')
        }
        await this.#spool.close()
      }
      if (plain.length > 0) this.push(plain)
      if (last) this.push(null)
    } catch (error) {
      this.destroy(error as Error)
    }
  }
}

/** Both are made while the key is at hand, so that it can be wiped at once. */
interface Attempt {
  check: Decipher
  open: Decipher
}

function newDecipher(key: Uint8Array, nonce: Uint8Array) {
  return createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
}

/** Frees unverified plaintext at once: left to the collector it is most of what the stream would hold. */
function discard(plain: Buffer): void {
  const memory = plain.buffer as ArrayBuffer
  if (plain.byteLength === memory.byteLength) memory.transfer(0)
}

function verifies(decipher: Decipher, tag: Buffer): boolean {
  decipher.setAuthTag(tag)
  try {
    decipher.final()
  } catch {
    return false
  }
  return true
}

/** A temporary file without a name: not even a killed process leaves it behind. */
class Spool {
  size = 0
  readonly #folder: string
  #path: string | undefined
  #opening: Promise<FileHandle> | undefined
  #closing: Promise<void> | undefined

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Appends; the file is made with the first byte. @throws TransformError SPOOL. */
  async write(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return
    await this.#guard('written', async () => {
      const file = await this.#file()
      for (let at = 0; at < bytes.length; ) {
        const { bytesWritten } = await file.write(bytes, at, bytes.length - at, this.size)
        if (bytesWritten === 0) throw new Error('it takes no more')
        at += bytesWritten
        this.size += bytesWritten
      }
    })
  }

  /**
   * @param into is filled from its start, with at most BLOCK_BYTES.
   * @returns what was read, a view of `into`.
   * @throws TransformError SPOOL.
   */
  async read(into: Buffer, offset: number): Promise<Buffer> {
    const length = Math.min(BLOCK_BYTES, this.size - offset)
    await this.#guard('read', async () => {
      for (let at = 0; at < length; ) {
        const { bytesRead } = await (await this.#file()).read(into, at, length - at, offset + at)
        if (bytesRead === 0) throw new Error(`it ends ${length - at} bytes early`)
        at += bytesRead
      }
    })
    return into.subarray(0, length)
  }

  /** Waits for what is under way, then closes and removes the file. @throws TransformError SPOOL. */
  close(): Promise<void> {
    this.#closing ??= this.#guard('removed', async () => {
      // What failed to open has been reported where it was to be used.
      const file = await this.#opening?.catch(() => undefined)
      try {
        await file?.close()
      } finally {
        if (this.#path !== undefined) await unlink(this.#path)
      }
    })
    return this.#closing
  }

  #file(): Promise<FileHandle> {
    if (this.#closing) throw new Error('it is closed')
    this.#opening ??= this.#open()
    return this.#opening
  }

  async #open(): Promise<FileHandle> {
    const path = join(this.#folder, `millrace-${randomBytes(12).toString('hex')}.spool`)
    const file = await open(path, 'wx+', 0o600)
    // Where an open file keeps its name, it goes when it is closed.
    await unlink(path).catch(() => {
      this.#path = path
    })
    return file
  }

  async #guard(verb: string, work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (cause) {
      throw new TransformError(
        'SPOOL',
        `The temporary file in ${this.#folder} cannot be ${verb}: ${(cause as Error).message}. Free some space there, or give another tempFolder.`,
        { cause },
      )
    }
  }
}
