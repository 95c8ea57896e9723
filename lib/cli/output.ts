import { once } from 'node:events'
import { explainError } from './debug.ts'
import type { EventFields, EventName } from './events.ts'
import { printable } from './format.ts'
import { ProgressDisplay, ProgressLog, type Shown } from './progress.ts'
import { style } from './style.ts'

const WARNINGS_SHOWN = 20
const JSON_PROGRESS_MS = 1000

export interface OutputOptions {
  json?: boolean | undefined
  /** Only results, warnings and errors. */
  quiet?: boolean | undefined
  /** Errors with their stacks and causes. */
  debug?: boolean | undefined
}

/**
 * What a command says. People get results on stdout, and progress, warnings and errors on stderr; with `--json` all of
 * it is one JSON object a line on stdout, each with its `event`: see events.ts.
 */
export class Output {
  readonly json: boolean
  readonly #quiet: boolean
  readonly #debug: boolean
  #warnings = 0
  #progress: ProgressDisplay | ProgressLog | undefined
  #lastProgress: number | undefined

  constructor({ json = false, quiet = false, debug = false }: OutputOptions = {}) {
    this.json = json
    this.#quiet = quiet
    this.#debug = debug
  }

  /** The result: `event` with its fields for programs, `text` for people. */
  result<Name extends EventName>(event: Name, fields: EventFields<Name>, text: string): void {
    this.endProgress()
    if (this.json) this.#event(event, fields)
    else process.stdout.write(`${text}\n`)
  }

  /** A result that is for people alone: programs have had an event for each of its lines. */
  text(text: string): void {
    this.endProgress()
    if (!this.json) process.stdout.write(`${text}\n`)
  }

  /**
   * For what has many results: until whoever reads stdout has taken most of what it was given, which is held in memory.
   * @returns undefined where there is room.
   * @throws AbortError when `signal` aborts.
   */
  room(signal: AbortSignal): Promise<void> | undefined {
    return process.stdout.writableNeedDrain ? once(process.stdout, 'drain', { signal }).then(() => {}) : undefined
  }

  warning = (warning: { kind: string; path: string; message: string; cause?: unknown }): void => {
    this.#warnings += 1
    if (this.json) {
      const { kind, path, message } = warning
      this.#event('warning', { kind, path, message })
      return
    }
    if (this.#warnings > WARNINGS_SHOWN) return
    this.say(`${style('warn', 'Warning:', process.stderr)} ${printable(warning.message)}`)
  }

  /** What changes no result and is worth knowing. */
  notice = (message: string): void => {
    if (this.#quiet) return
    if (this.json) this.#event('notice', { message })
    else this.say(style('dim', `Note: ${printable(message)}`, process.stderr))
  }

  progress = (shown: Shown): void => {
    if (this.#quiet) return
    if (this.json) {
      const now = performance.now()
      // What is over within a second says nothing of how far it is.
      this.#lastProgress ??= now
      if (now - this.#lastProgress < JSON_PROGRESS_MS) return
      this.#lastProgress = now
      this.#event('progress', shown)
      return
    }
    this.#progress ??= process.stderr.isTTY ? new ProgressDisplay() : new ProgressLog()
    this.#progress.show(shown)
  }

  /** @param code the exit code that it is worth. */
  error(error: Error, code: number): void {
    this.endProgress()
    const { code: kind } = error as { code?: unknown }
    const { message } = error
    if (this.json)
      this.#event('error', { exitCode: code, ...(typeof kind === 'string' ? { code: kind } : {}), message })
    const { lines = [message] } = error as { lines?: readonly string[] }
    this.complain(...lines)
    if (this.#debug) process.stderr.write(`${explainError(error)}\n`)
  }

  /** For programs: people have had commander's own message. */
  usageError(message: string, code: number): void {
    this.#event('error', { exitCode: code, code: 'USAGE', message })
  }

  /** What went wrong, for people, beside the events. */
  complain(...lines: readonly string[]): void {
    this.say(`${style('bad', 'millrace:', process.stderr)} ${lines.map(printable).join('\n')}`)
  }

  /** One line on stderr, above the progress. */
  say(line: string): void {
    this.#progress?.clear()
    process.stderr.write(`${line}\n`)
  }

  endProgress(): void {
    this.#progress?.stop()
    this.#progress = undefined
    const more = this.#warnings - WARNINGS_SHOWN
    if (more > 0 && !this.json) {
      process.stderr.write(`${style('warn', 'Warning:', process.stderr)} and ${more} more; --json shows all\n`)
    }
    this.#warnings = 0
  }

  #event<Name extends EventName>(event: Name, fields: EventFields<Name>): void {
    process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
  }
}
