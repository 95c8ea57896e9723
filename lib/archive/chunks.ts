/**
 * The chunks that went into a parser and that it may still hold slices of, so that each can be given back the moment
 * everything up to its end has been taken out.
 */
export class ChunkLedger {
  readonly #onConsumed: ((chunk: Buffer) => void) | undefined
  readonly #held: { end: number; chunk: Buffer }[] = []
  /** What has come out and is still looked at, in order. */
  readonly #used: { from: number; isDone: boolean }[] = []
  #fed = 0
  #out = 0

  /** @param onConsumed told of each chunk once, in order; undefined: nothing is held. */
  constructor(onConsumed: ((chunk: Buffer) => void) | undefined) {
    this.#onConsumed = onConsumed
  }

  /** Notes a chunk that goes in. */
  feed(chunk: Buffer): void {
    this.#fed += chunk.length
    if (this.#onConsumed) this.#held.push({ end: this.#fed, chunk })
  }

  /** @param offset all bytes before it have come out, and nobody looks at them any more but who said so with `use`. */
  consumed(offset: number): void {
    this.#out = Math.max(this.#out, offset)
    const until = Math.min(this.#out, this.#used[0]?.from ?? Number.POSITIVE_INFINITY)
    while (this.#held.length > 0 && (this.#held[0] as { end: number }).end <= until) {
      this.#onConsumed?.((this.#held.shift() as { chunk: Buffer }).chunk)
    }
  }

  /**
   * Notes that bytes which have come out are looked at for longer.
   * @param from their offset; not before that of the last call.
   * @returns to be called when they are not any more.
   */
  use(from: number): () => void {
    const use = { from, isDone: false }
    this.#used.push(use)
    return () => {
      use.isDone = true
      while (this.#used[0]?.isDone) this.#used.shift()
      this.consumed(this.#out)
    }
  }
}
