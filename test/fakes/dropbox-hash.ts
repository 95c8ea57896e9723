import { createHash, type Hash } from 'node:crypto'

/** Dropbox's content_hash of bytes that come in pieces of any size (https://www.dropbox.com/developers/reference/content-hash). */
export class ContentHasher {
  readonly #blockBytes: number
  readonly #whole = createHash('sha256')
  #block: Hash = createHash('sha256')
  #used = 0

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes
  }

  update(bytes: Buffer): this {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.#blockBytes - this.#used)
      this.#block.update(piece)
      this.#used += piece.length
      at += piece.length
      if (this.#used === this.#blockBytes) this.#endBlock()
    }
    return this
  }

  /** Hex in lower case. Nothing may be added after it. */
  digest(): string {
    if (this.#used > 0) this.#endBlock()
    return this.#whole.digest('hex')
  }

  #endBlock(): void {
    this.#whole.update(this.#block.digest())
    this.#block = createHash('sha256')
    this.#used = 0
  }
}
