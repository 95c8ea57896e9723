import type { Clock } from '../../lib/schedule/clock.ts'
import type { Run, Runner, RunResult } from '../../lib/schedule/run.ts'

/** A clock that goes on when it is told to, and can be set. */
export class FakeClock implements Clock {
  #now: number
  #monotonic = 0
  #timers: { at: number; callback: () => void }[] = []

  constructor(now: number) {
    this.#now = now
  }

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#monotonic
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#monotonic + ms, callback }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer)
    }
  }

  /** Lets time pass, and calls back whoever waits for it, in order. */
  async pass(ms: number): Promise<void> {
    const end = this.#monotonic + ms
    await settle()
    for (;;) {
      const [next] = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
      if (!next) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.#goTo(next.at)
      next.callback()
      await settle()
    }
    this.#goTo(end)
    await settle()
  }

  /** Sets it; what waits for time to pass waits as long as before. */
  step(byMs: number): void {
    this.#now += byMs
  }

  #goTo(monotonic: number): void {
    this.#now += monotonic - this.#monotonic
    this.#monotonic = monotonic
  }
}

/** Long enough for promises that are kept by others that are. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await Promise.resolve()
}

export interface FakeRun {
  args: readonly string[]
  signals: string[]
  end(result?: Partial<RunResult>): void
}

/** Runs that end when the test says so. */
export class FakeRunner {
  /** All that were begun. */
  readonly runs: FakeRun[] = []
  /** Those that are at work. */
  active: FakeRun[] = []

  readonly start: Runner = (args): Run => {
    const ends = Promise.withResolvers<RunResult>()
    const run: FakeRun = {
      args,
      signals: [],
      end: (result = {}) => {
        this.active = this.active.filter((one) => one !== run)
        ends.resolve({ exitCode: 0, statuses: [], warnings: 0, ...result })
      },
    }
    this.runs.push(run)
    this.active.push(run)
    return { ended: ends.promise, stop: (signal) => run.signals.push(signal) }
  }
}
