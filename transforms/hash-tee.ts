import { createHash } from 'node:crypto'
import { Transform } from 'node:stream'

/** A pass-through that knows the SHA-256 of what passed. */
export interface HashTee extends Transform {
  /** Hex in lower case. @throws Error before the stream has ended. */
  readonly digest: string
  /** Bytes that passed. @throws Error before the stream has ended. */
  readonly bytes: number
}

/** A stream that passes bytes on unchanged and hashes and counts them. */
export function createHashTee(): HashTee {
  return new HashTeeStream()
}

class HashTeeStream extends Transform implements HashTee {
  readonly #hash = createHash('sha256')
  #count = 0
  #digest: string | undefined

  get digest(): string {
    if (this.#digest === undefined) throw new Error('The digest is known when the stream has ended, not before.')
    return this.#digest
  }

  get bytes(): number {
    if (this.#digest === undefined) throw new Error('The count is known when the stream has ended, not before.')
    return this.#count
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: (error: null, chunk: Buffer) => void): void {
    this.#hash.update(chunk)
    this.#count += chunk.length
    callback(null, chunk)
  }

  override _flush(callback: () => void): void {
    this.#digest = this.#hash.digest('hex')
    callback()
  }
}
