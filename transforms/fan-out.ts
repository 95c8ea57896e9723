import { Writable } from 'node:stream'
import { TransformError } from './errors.ts'
import { checkRange } from './zstd-compress.ts'

/** One of the streams that a fan-out writes to. */
export interface Destination {
  /** For the status and the messages; one each. */
  name: string
  /** Its `finish` means committed, and its `close` has to come, as a Node stream's does unless it is told otherwise. */
  stream: Writable
}

/** How one destination of a fan-out is doing. */
export interface DestinationStatus {
  name: string
  /** `finished`: it has committed all bytes. `failed`: it has not, and never will. */
  state: 'writing' | 'finished' | 'failed'
  /** Bytes that it has taken, not only been given. */
  bytes: number
  /** Why it failed; or what came after it had finished, which undoes nothing. */
  error?: Error | undefined
}

/** How a fan-out treats its destinations. */
export interface FanOutOptions {
  /** `drop`, the default: the others go on without one that fails. `fail-all`: all fail with it. */
  onFailure?: 'drop' | 'fail-all' | undefined
  /** The least destinations that must be left; 1 when left out. */
  minimum?: number | undefined
}

/** A stream that writes to several others. */
export interface FanOut extends Writable {
  /** One a destination, in the order given; final when the stream has closed. */
  readonly statuses: readonly DestinationStatus[]
}

/**
 * One stream into several. A chunk is given to all, the same memory and never changed, and the next is taken when all
 * have taken this one: the slowest sets the pace, and nothing piles up. `finish` comes when every destination that is
 * left has emitted its own. Destroying it destroys the destinations, and its `close` comes after theirs. After an
 * orderly end it destroys none: a Duplex may still be read.
 * @throws TransformError BAD_OPTION for no destinations, a name or stream given twice, or an option out of its range.
 * The stream fails with FAN_OUT when fewer than `minimum` are left, or with `fail-all` when one fails; what has
 * committed by then stays committed, and its status says so.
 */
export function createFanOut(destinations: readonly Destination[], options: FanOutOptions = {}): FanOut {
  const onFailure = options.onFailure ?? 'drop'
  if (onFailure !== 'drop' && onFailure !== 'fail-all') {
    throw new TransformError('BAD_OPTION', `onFailure is ${onFailure} and must be drop or fail-all.`)
  }
  if (destinations.length === 0) throw new TransformError('BAD_OPTION', 'Give at least one destination.')
  for (const part of ['name', 'stream'] as const) {
    if (new Set(destinations.map((one) => one[part])).size < destinations.length) {
      throw new TransformError('BAD_OPTION', `Two destinations have the same ${part}. Give each its own.`)
    }
  }
  const minimum = checkRange('minimum', options.minimum ?? 1, 1, destinations.length)
  return new FanOutStream(destinations, onFailure === 'fail-all' ? destinations.length : minimum)
}

type Callback = (error?: Error | null) => void

class FanOutStream extends Writable implements FanOut {
  readonly #branches: readonly Branch[]
  readonly #minimum: number
  #pending: Callback | undefined
  #ended = false

  constructor(destinations: readonly Destination[], minimum: number) {
    super()
    this.#minimum = minimum
    this.#branches = destinations.map((one) => new Branch(one, (branch) => this.#lost(branch)))
  }

  get statuses(): readonly DestinationStatus[] {
    return this.#branches.map(({ status }) => ({ ...status }))
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: Callback): void {
    this.#all((branch) => branch.write(chunk), callback)
  }

  override _final(callback: Callback): void {
    this.#all(
      (branch) => branch.end(),
      (error) => {
        this.#ended = !error
        callback(error)
      },
    )
  }

  override _destroy(error: Error | null, callback: Callback): void {
    const pending = this.#pending
    this.#pending = undefined
    if (!this.#ended) {
      const reason = error ?? new TransformError('FAN_OUT', 'The stream was destroyed before its end.')
      for (const branch of this.#branches) branch.abort(reason, error)
      pending?.(reason)
    }
    Promise.all(this.#branches.map((branch) => branch.closed())).then(() => callback(error))
  }

  /** One step of all that are left. */
  #all(step: (branch: Branch) => Promise<void>, callback: Callback): void {
    this.#pending = callback
    const steps = this.#branches.filter(({ status }) => status.state === 'writing').map(step)
    Promise.all(steps).then(() => this.#settle())
  }

  #settle(error?: Error): void {
    const pending = this.#pending
    this.#pending = undefined
    if (pending) pending(error)
    else if (error) this.destroy(error)
  }

  /** At once, not when the step is over: another destination may be stalled in it. */
  #lost(branch: Branch): void {
    const left = this.#branches.filter(({ status }) => status.state !== 'failed').length
    if (left >= this.#minimum || this.destroyed) return
    const { name, error } = branch.status
    const message = `Destination ${name} failed, ${left} of ${this.#branches.length} are left, and ${this.#minimum} must be: ${error?.message}`
    this.#settle(new TransformError('FAN_OUT', message, { cause: error }))
  }
}

/** One destination and what has become of it. */
class Branch {
  readonly status: DestinationStatus
  readonly #stream: Writable
  readonly #onLost: (branch: Branch) => void
  readonly #closed: Promise<void>
  #ended = false
  #aborted = false
  /** Ends the step that it is in. */
  #done: (() => void) | undefined

  constructor({ name, stream }: Destination, onLost: (branch: Branch) => void) {
    this.status = { name, state: 'writing', bytes: 0 }
    this.#stream = stream
    this.#onLost = onLost
    // They stay for good: an error that nobody listens for would end the process, however late it comes.
    stream.on('error', (error) => this.#fail(error))
    stream.on('finish', () => this.#finished())
    this.#closed = new Promise((resolve) => {
      stream.on('close', () => {
        if (this.status.state === 'writing') this.#fail(lost('closed before it had taken everything'))
        resolve()
      })
    })
    // Such a stream emits nothing any more, and may never call back.
    if (stream.destroyed || stream.errored) process.nextTick(() => this.#fail(lost('destroyed before the start')))
    else if (stream.writableEnded) process.nextTick(() => this.#fail(lost('ended before the start')))
  }

  /** @returns a promise that never rejects: it is kept when the chunk is taken or the destination has failed. */
  write(chunk: Buffer): Promise<void> {
    return this.#step(() => {
      this.#stream.write(chunk, (error) => {
        if (error) this.#fail(error)
        else if (this.status.state === 'writing') {
          this.status.bytes += chunk.length
          this.#done?.()
        }
      })
    })
  }

  /** @returns a promise that never rejects: it is kept when the destination has finished or failed. */
  end(): Promise<void> {
    return this.#step(() => {
      this.#ended = true
      this.#stream.end()
    })
  }

  /** @param reason for the status. @param error what the stream is destroyed with, null for nothing. */
  abort(reason: Error, error: Error | null): void {
    this.#aborted = true
    if (this.status.state === 'writing') {
      this.status.state = 'failed'
      this.status.error = reason
    }
    this.#destroy(error)
    this.#done?.()
  }

  /** Kept when the stream has closed, or does not close by itself because it has finished and is still read. */
  closed(): Promise<void> {
    return this.#stream.destroyed && !this.#stream.closed ? this.#closed : Promise.resolve()
  }

  #step(act: () => void): Promise<void> {
    return new Promise((resolve) => {
      this.#done = () => {
        this.#done = undefined
        resolve()
      }
      try {
        act()
      } catch (error) {
        this.#fail(error as Error)
      }
    })
  }

  #finished(): void {
    if (this.status.state !== 'writing') return
    if (!this.#ended) {
      this.#fail(lost('ended before it had been given everything'))
      return
    }
    this.status.state = 'finished'
    this.#done?.()
  }

  #fail(error: Error): void {
    if (this.#aborted) return
    // A write after destroy() says only that; the stream knows why it was destroyed.
    const reason = this.#stream.errored ?? error
    this.status.error ??= reason
    if (this.status.state !== 'writing') return
    this.status.state = 'failed'
    this.#destroy(reason)
    this.#done?.()
    this.#onLost(this)
  }

  #destroy(error: Error | null): void {
    try {
      this.#stream.destroy(error ?? undefined)
    } catch (thrown) {
      this.status.error ??= thrown as Error
    }
  }
}

function lost(what: string): TransformError {
  return new TransformError('FAN_OUT', `The destination was ${what}.`)
}
