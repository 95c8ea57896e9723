/**
 * The chunks that went into a parser and that it may still hold slices of, so that each can be given back the moment
 * everything up to its end has been taken out.
 */
export class ChunkLedger {
  readonly #onConsumed: ((chunk: Buffer) => void) | undefined
  readonly #held: { end: number; chunk: Buffer }[] = []
  #fed = 0

  /** @param onConsumed told of each chunk once, in order; undefined: nothing is held. */
  constructor(onConsumed: ((chunk: Buffer) => void) | undefined) {
    this.#onConsumed = onConsumed
  }

  /** Notes a chunk that goes in. */
  feed(chunk: Buffer): void {
    this.#fed += chunk.length
    if (this.#onConsumed) this.#held.push({ end: this.#fed, chunk })
  }

  /** @param offset all bytes before it have come out, and nobody looks at them any more. */
  consumed(offset: number): void {
    while (this.#held.length > 0 && (this.#held[0] as { end: number }).end <= offset) {
      this.#onConsumed?.((this.#held.shift() as { chunk: Buffer }).chunk)
    }
  }
}
