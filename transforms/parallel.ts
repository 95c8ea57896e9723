import { Duplex } from 'node:stream'

/**
 * One piece of work, whose output leaves in the order in which the pieces were begun. A promise is under way already;
 * a function begins when all before it has left, and may give more than fits in memory.
 */
export type Job = Promise<Iterable<Buffer>> | (() => AsyncIterable<Buffer> | Promise<Iterable<Buffer>>)

/** What cuts a byte stream into jobs. */
export interface Cutter {
  /** Takes bytes of `chunk` from `offset`, at least one, up to the next job. It copies what it keeps. */
  take(chunk: Buffer, offset: number): { taken: number; job?: Job | undefined }
  /** The jobs that are left when the input has ended. */
  end(): Iterable<Job>
  /** Lets go of everything; the stream is over. */
  close(): void
}

/**
 * The stream around a cutter: up to `lanes` jobs at a time, output in order, and nothing begun while the reader
 * downstream holds back, so memory is `lanes` jobs whatever the speeds are. (A Transform cannot do this: it takes its
 * next chunk as soon as nothing was pushed, however full its readable side is.)
 */
export class ParallelDuplex extends Duplex {
  readonly #cutter: Cutter
  readonly #lanes: number
  readonly #onConsumed: ((chunk: Buffer) => void) | undefined
  readonly #queue: Job[] = []
  #rest: { chunk: Buffer; offset: number; callback: (error?: Error | null) => void } | undefined
  #tail: { jobs: Iterator<Job>; callback: (error?: Error | null) => void } | undefined
  #wanted = false
  #draining = false
  #wake: (() => void) | undefined

  /** @param onConsumed told of each chunk of which the cutter has taken all. */
  constructor(cutter: Cutter, lanes: number, onConsumed?: (chunk: Buffer) => void) {
    super({ readableHighWaterMark: 64 * 1024, writableHighWaterMark: 64 * 1024 })
    this.#cutter = cutter
    this.#lanes = lanes
    this.#onConsumed = onConsumed
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#rest = { chunk, offset: 0, callback }
    this.#fill()
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#tail = { jobs: this.#cutter.end()[Symbol.iterator](), callback }
    this.#fill()
  }

  override _read(): void {
    this.#wanted = true
    this.#wake?.()
    if (!this.#draining) void this.#drain()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#wake?.()
    this.#cutter.close()
    callback(error)
  }

  #fill(): void {
    try {
      while (this.#queue.length < this.#lanes && this.#step()) {}
    } catch (error) {
      this.destroy(error as Error)
    }
    if (!this.#draining && (this.#queue.length > 0 || this.#tail)) void this.#drain()
  }

  /** @returns whether there may be more to do at once. */
  #step(): boolean {
    const rest = this.#rest
    if (rest) {
      if (rest.offset === rest.chunk.length) {
        this.#rest = undefined
        this.#onConsumed?.(rest.chunk)
        rest.callback()
      } else {
        const { taken, job } = this.#cutter.take(rest.chunk, rest.offset)
        rest.offset += taken
        if (job) this.#begin(job)
      }
      return true
    }
    const next = this.#tail?.jobs.next()
    if (!next || next.done) return false
    this.#begin(next.value)
    return true
  }

  #begin(job: Job): void {
    // Its failure is reported when its turn comes; until then it is not 'unhandled'.
    if (job instanceof Promise) job.catch(() => {})
    this.#queue.push(job)
  }

  async #drain(): Promise<void> {
    this.#draining = true
    try {
      while (this.#queue.length > 0 && !this.destroyed) {
        const job = this.#queue[0] as Job
        const output = job instanceof Promise ? job : job()
        for await (const buffer of output instanceof Promise ? await output : output) {
          while (!this.#wanted && !this.destroyed) {
            await new Promise<void>((resolve) => {
              this.#wake = resolve
            })
            this.#wake = undefined
          }
          if (this.destroyed) return
          this.#wanted = this.push(buffer)
        }
        this.#queue.shift()
        this.#fill()
      }
      if (this.#tail && this.#queue.length === 0 && !this.destroyed) {
        this.#tail.callback()
        this.#tail = undefined
        this.push(null)
      }
    } catch (error) {
      this.destroy(error as Error)
    } finally {
      this.#draining = false
    }
  }
}
