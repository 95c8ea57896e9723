import { printable } from './format.ts'
import { ProgressBar, type Shown } from './progress.ts'

const WARNINGS_SHOWN = 20
const JSON_PROGRESS_MS = 1000

/**
 * What a command says. People get results on stdout, and progress, warnings and errors on stderr; with `--json` all of
 * it is one JSON object a line on stdout, each with its `event`.
 */
export class Output {
  readonly json: boolean
  #warnings = 0
  #bar: ProgressBar | undefined
  #lastProgress = 0

  constructor(json: boolean) {
    this.json = json
  }

  /** The result: `event` with its fields for programs, `text` for people. */
  result(event: string, fields: object, text: string): void {
    this.endProgress()
    process.stdout.write(this.json ? `${JSON.stringify({ event, ...fields })}\n` : `${text}\n`)
  }

  warning = (warning: { kind: string; path: string; message: string; cause?: unknown }): void => {
    this.#warnings += 1
    if (this.json) {
      const { kind, path, message } = warning
      process.stdout.write(`${JSON.stringify({ event: 'warning', kind, path, message })}\n`)
      return
    }
    if (this.#warnings > WARNINGS_SHOWN) return
    this.#bar?.clear()
    process.stderr.write(`Warning: ${printable(warning.message)}\n`)
  }

  /** What changes no result and is worth knowing. */
  notice = (message: string): void => {
    if (this.json) {
      process.stdout.write(`${JSON.stringify({ event: 'notice', message })}\n`)
      return
    }
    this.#bar?.clear()
    process.stderr.write(`Note: ${printable(message)}\n`)
  }

  progress = (shown: Shown): void => {
    if (this.json) {
      const now = performance.now()
      if (now - this.#lastProgress < JSON_PROGRESS_MS) return
      this.#lastProgress = now
      process.stdout.write(`${JSON.stringify({ event: 'progress', ...shown })}\n`)
      return
    }
    if (!process.stderr.isTTY) return
    this.#bar ??= new ProgressBar()
    this.#bar.show(shown)
  }

  error(error: Error, code: number): void {
    this.endProgress()
    const kind = (error as { code?: unknown }).code
    if (this.json) {
      process.stdout.write(
        `${JSON.stringify({ event: 'error', exitCode: code, ...(typeof kind === 'string' ? { code: kind } : {}), message: error.message })}\n`,
      )
    }
    const { lines = [error.message] } = error as { lines?: readonly string[] }
    process.stderr.write(`millrace: ${lines.map(printable).join('\n')}\n`)
  }

  endProgress(): void {
    this.#bar?.stop()
    this.#bar = undefined
    const more = this.#warnings - WARNINGS_SHOWN
    if (more > 0 && !this.json) process.stderr.write(`Warning: and ${more} more; --json shows all\n`)
    this.#warnings = 0
  }
}
