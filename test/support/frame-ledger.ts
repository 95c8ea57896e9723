import { type FrameLedger, SEAL_BYTES } from '../../transforms/index.ts'

/** A ledger in memory. */
export class MemoryLedger implements FrameLedger {
  readonly seals: Buffer[]
  readonly #before: number
  header: Buffer | undefined
  /** Headers that were begun with. */
  begun: Buffer[] = []

  /** @param count of another one's frames to begin with; all when left out. */
  constructor(before?: MemoryLedger, count = before?.seals.length ?? 0) {
    this.header = before?.header ?? before?.begun[0]
    this.seals = before?.seals.slice(0, count) ?? []
    this.#before = this.seals.length
  }

  seal(frame: number): Buffer | undefined {
    return frame < this.#before ? this.seals[frame] : undefined
  }

  begin(header: Buffer): void {
    this.begun.push(header)
  }

  add(frame: number, seal: Buffer): void {
    if (frame !== this.seals.length) throw new Error(`frame ${frame} comes after ${this.seals.length} frames`)
    if (seal.length !== SEAL_BYTES) throw new Error(`a seal of ${seal.length} bytes`)
    this.seals.push(seal)
  }
}
