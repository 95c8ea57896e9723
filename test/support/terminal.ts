import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { BIN, STATE_FOLDER } from './cli.ts'

const PTY = join(import.meta.dirname, 'on-terminal.py')
const COLUMNS = 200
const ROWS = 60
/** For a busy machine; what is waited for mostly comes at once. */
const PATIENCE_MS = 90_000

export const KEY = {
  enter: '\r',
  down: '\x1b[B',
  up: '\x1b[A',
  tab: '\t',
  ctrlC: '\x03',
  ctrlU: '\x15',
  yes: 'y',
  no: 'n',
} as const

/** The command on a pseudo-terminal, as somebody at a keyboard has it. */
export class TerminalRun {
  readonly #child: ChildProcess
  #raw = ''
  #seen = 0
  #wake: () => void = () => {}
  #ended = false
  readonly #code: Promise<number | null>

  constructor(child: ChildProcess) {
    this.#child = child
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#raw += text
      this.#wake()
    })
    this.#code = new Promise((resolve) => {
      child.on('close', (code) => {
        this.#ended = true
        this.#wake()
        resolve(code)
      })
    })
  }

  /** All that the terminal was sent, control sequences and all. */
  get raw(): string {
    return this.#raw
  }

  /** The same as text. */
  get text(): string {
    return stripVTControlCharacters(this.#raw)
  }

  /** Waits until something new is on the terminal that matches. */
  async see(pattern: RegExp): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS
    for (;;) {
      const fresh = this.text.slice(this.#seen)
      const match = pattern.exec(fresh)
      if (match) {
        this.#seen += match.index + match[0].length
        return
      }
      const left = deadline - Date.now()
      if (this.#ended || left <= 0) assert.fail(`${pattern} did not come. What did:\n${fresh}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  type(...keys: string[]): void {
    this.#child.stdin?.write(keys.join(''))
  }

  /** Waits for a question, and answers it; text that stands there already is replaced. */
  async answer(question: RegExp, text: string): Promise<void> {
    await this.see(question)
    this.type(KEY.ctrlU, text, KEY.enter)
  }

  /** Waits for a question, and takes the answer so many below the one that it begins at. */
  async choose(question: RegExp, below = 0): Promise<void> {
    await this.see(question)
    this.type(KEY.down.repeat(below), KEY.enter)
  }

  /** Waits for a question, and says yes or no. */
  async confirm(question: RegExp, yes: boolean): Promise<void> {
    await this.see(question)
    this.type(yes ? KEY.yes : KEY.no)
  }

  /** Waits for the end. @returns the exit code. */
  end(): Promise<number | null> {
    return this.#code
  }
}

/** Starts the command on a terminal of its own; it is ended with the test. */
export function onTerminal(
  t: TestContext,
  args: readonly string[],
  { cwd, env = {} }: { cwd: string; env?: NodeJS.ProcessEnv },
): TerminalRun {
  const { MILLRACE_PASSWORD: _, CI: __, ...inherited } = process.env
  const child = spawn('python3', [PTY, String(COLUMNS), String(ROWS), process.execPath, BIN, ...args], {
    cwd,
    env: { ...inherited, TERM: 'xterm-256color', MILLRACE_STATE_DIR: STATE_FOLDER, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin?.on('error', () => {})
  t.after(() => child.kill('SIGKILL'))
  return new TerminalRun(child)
}
