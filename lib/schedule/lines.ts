/** Cuts bytes into lines; a line that is longer than `maxBytes` is left out, and never held. */
export class Lines {
  readonly #maxBytes: number
  readonly #onLine: (line: string) => void
  #held: Buffer[] = []
  #bytes = 0

  constructor(maxBytes: number, onLine: (line: string) => void) {
    this.#maxBytes = maxBytes
    this.#onLine = onLine
  }

  push(chunk: Buffer): void {
    let from = 0
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, from)) {
      this.#hold(chunk.subarray(from, end))
      this.end()
      from = end + 1
    }
    this.#hold(chunk.subarray(from))
  }

  /** What was written last has no line end. */
  end(): void {
    if (this.#bytes > 0 && this.#bytes <= this.#maxBytes) this.#onLine(Buffer.concat(this.#held).toString('utf8'))
    this.#held = []
    this.#bytes = 0
  }

  #hold(part: Buffer): void {
    if (part.length === 0) return
    this.#bytes += part.length
    if (this.#bytes <= this.#maxBytes) this.#held.push(Buffer.from(part))
    else this.#held = []
  }
}
