import { createReadStream } from 'node:fs'
import { write } from './io.ts'

/** A piece of a file's content, in memory that is another's. */
export interface Piece {
  data: Buffer
  /** To be called when nobody looks at it any more. */
  onWritten: () => void
}

/** A file's content, to be written to another. */
export async function* piecesOf(file: string): AsyncGenerator<Piece, void, void> {
  for await (const data of createReadStream(file)) yield { data, onWritten: () => {} }
}

/** Says when one more of something that takes time may begin. */
export class Slots {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  /** Waits for a slot, and takes it. */
  async take(): Promise<void> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  giveBack(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#free++
  }
}

/** What is written to one open file, from its start on, while the next pieces come. */
export class FileWrites {
  readonly #fd: number
  readonly #slots: Slots
  readonly #underWay = new Set<Promise<void>>()
  #position = 0
  #failure: { error: unknown } | undefined

  /** @param slots of all files that are written at a time: each holds a piece. */
  constructor(fd: number, slots: Slots) {
    this.#fd = fd
    this.#slots = slots
  }

  /**
   * Waits for a slot and begins to write.
   * @throws the file system's error of this or an earlier piece, as soon as it is known.
   */
  async add(piece: Piece): Promise<void> {
    await this.#slots.take()
    if (this.#failure) {
      this.#slots.giveBack()
      throw this.#failure.error
    }
    const position = this.#position
    this.#position += piece.data.length
    // One after another: writes of one file wait for each other in the kernel, which burns a core meanwhile.
    const work = Promise.all(this.#underWay)
      .then(() => this.#write(piece.data, position))
      .then(piece.onWritten, (error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#underWay.delete(work)
        this.#slots.giveBack()
      })
    this.#underWay.add(work)
  }

  /** Waits until everything is written. @throws the first failure. */
  async finish(): Promise<void> {
    await this.settle()
    if (this.#failure) throw this.#failure.error
  }

  /** Waits for what is under way. Never throws. */
  async settle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay)
  }

  async #write(data: Buffer, position: number): Promise<void> {
    for (let at = 0; at < data.length; ) at += await write(this.#fd, data, at, position + at)
  }
}
