import { createRequire } from 'node:module'
import type cliProgress from 'cli-progress'
import type { Progress } from '../../transforms/index.ts'
import type { DestinationProgress } from '../destinations.ts'
import { formatBytes, formatDuration, formatRate, formatRatio } from './format.ts'

/** How far a command is. */
export interface Shown extends Progress {
  /** What is at work, of a command that does one thing after the other; reading when left out. */
  stage?: string | undefined
  /** Bytes that have gone towards the stores, and what became of them at each. */
  storedBytes?: number | undefined
  destinations?: DestinationProgress[] | undefined
  /** Of a command that goes through several. */
  snapshots?: { done: number; of: number } | undefined
  /** For so long nothing has passed. */
  idleMs?: number | undefined
}

const require = createRequire(import.meta.url)

const LOG_MS = 60_000
/** Reports come four times a second while anything passes. */
const IDLE_MS = 5000
const FRAMES_A_SECOND = 5
const BAR_CELLS = 24
/** A bar that is shorter says nothing. */
const BAR_CELLS_LEAST = 8
const WIDTH_WHEN_UNKNOWN = 80
/** Wider lines are harder to read, and none is longer. */
const WIDTH_MOST = 100
const NAME_CELLS_LEAST = 16
const SHOW_CURSOR = '\x1b[?25h\x1b[?7h'

/**
 * The lines that a terminal shows, each at most `width` long: how much is done, what is read and stored, and how far
 * each destination is. What does not fit is left out from the right, the least first.
 */
export function progressLines(shown: Shown, width: number): string[] {
  const room = Math.max(1, Math.min(width, WIDTH_MOST))
  const { stage = 'read', bytes, totalBytes, storedBytes, destinations = [], snapshots } = shown
  const lines: string[] = []
  if (totalBytes !== undefined) {
    // An estimate that was too low must not pass 100 %.
    const share = totalBytes > 0 ? Math.min(1, bytes / totalBytes) : 1
    const left = leftOf(shown)
    const percent = `${Math.floor(share * 100)}%`.padStart(4)
    const cells = Math.min(BAR_CELLS, room - `${percent}  ${left.join('')} `.length)
    lines.push(fit([percent, ...(cells >= BAR_CELLS_LEAST ? [bar(share, cells)] : []), ...left], ' ', room))
  }
  const of = totalBytes === undefined ? '' : ` of ${formatBytes(totalBytes)}`
  const count = snapshots ? [`${snapshots.done} of ${snapshots.of}`] : []
  lines.push(fit([`${stage.padEnd(7)} ${formatBytes(bytes)}${of}`, rateOf(shown), ...count], ', ', room))
  if (storedBytes !== undefined) {
    lines.push(fit([`stored  ${formatBytes(storedBytes)}`, `ratio ${formatRatio(bytes, storedBytes)}`], ', ', room))
  }
  for (const one of destinations) lines.push(destinationLine(one, room))
  return lines
}

function rateOf({ bytesPerSecond, idleMs }: Shown): string {
  return idleMs === undefined ? formatRate(bytesPerSecond) : `nothing for ${formatDuration(idleMs)}`
}

function leftOf({ etaMs, idleMs }: Shown): string[] {
  return etaMs === undefined || idleMs !== undefined ? [] : [`${formatDuration(Math.max(1000, etaMs))} left`]
}

function destinationLine({ destination, state, sentBytes, pendingBytes }: DestinationProgress, room: number): string {
  const sent = `${formatBytes(sentBytes)} sent`
  const parts = {
    failed: ['FAILED', sent],
    finished: [sent, 'done'],
    writing: [sent, `${formatBytes(pendingBytes)} pending`],
  }[state]
  const whole = parts.join(', ')
  const said = whole.length + 2 + NAME_CELLS_LEAST <= room ? whole : (parts[0] as string)
  return `${shorten(destination, room - said.length - 2)}  ${said}`.slice(0, room)
}

/** The middle goes: the store and the end of the path tell locations apart. */
function shorten(text: string, room: number): string {
  if (text.length <= room) return text
  if (room < 3) return text.slice(0, Math.max(0, room))
  const end = Math.floor((room - 1) / 2)
  return `${text.slice(0, room - 1 - end)}…${text.slice(text.length - end)}`
}

function fit(parts: readonly string[], separator: string, room: number): string {
  let line = ''
  for (const part of parts) {
    const longer = line === '' ? part : line + separator + part
    if (longer.length > room) break
    line = longer
  }
  return line === '' ? (parts[0] ?? '').slice(0, room) : line
}

function bar(share: number, cells: number): string {
  const done = Math.round(share * cells)
  return '█'.repeat(done) + '░'.repeat(cells - done)
}

/** How far it is, in one sentence for a log. */
export function progressSentence(shown: Shown): string {
  const { stage, bytes, totalBytes, storedBytes, destinations = [], snapshots } = shown
  const share = totalBytes ? ` (${Math.floor(Math.min(1, bytes / totalBytes) * 100)} %)` : ''
  const parts = [
    `${stage === undefined ? '' : `${stage}: `}${formatBytes(bytes)}${totalBytes === undefined ? '' : ` of ${formatBytes(totalBytes)}`}${share}`,
    ...(snapshots ? [`${snapshots.done} of ${snapshots.of} snapshots`] : []),
    rateOf(shown),
    ...(storedBytes === undefined ? [] : [`ratio ${formatRatio(bytes, storedBytes)}`]),
    ...leftOf(shown),
  ]
  const each = destinations.map(({ destination, state, sentBytes, pendingBytes }) =>
    state === 'writing'
      ? `${destination} ${formatBytes(sentBytes)} sent, ${formatBytes(pendingBytes)} pending`
      : `${destination} ${state}, ${formatBytes(sentBytes)} sent`,
  )
  return [parts.join(', '), ...each].join('; ')
}

/** The last report, and for how long it has been the last. */
class Latest {
  #shown: Shown | undefined
  #at = 0

  set(shown: Shown): void {
    this.#shown = shown
    this.#at = performance.now()
  }

  get(): Shown | undefined {
    const idleMs = performance.now() - this.#at
    return this.#shown && idleMs > IDLE_MS ? { ...this.#shown, idleMs } : this.#shown
  }
}

/** The lines on a terminal, drawn at most five times a second, at the width that it has then. */
export class ProgressDisplay {
  readonly #stream: NodeJS.WriteStream
  readonly #screen: cliProgress.MultiBar
  readonly #lines: cliProgress.SingleBar[] = []
  readonly #onExit: () => void
  readonly #latest = new Latest()

  /** @param stream a terminal. */
  constructor(stream: NodeJS.WriteStream = process.stderr) {
    this.#stream = stream
    // Here and not at the top: most runs have no terminal, and all would wait for its sixteen files.
    const { MultiBar } = require('cli-progress') as typeof cliProgress
    this.#screen = new MultiBar({
      stream,
      fps: FRAMES_A_SECOND,
      hideCursor: true,
      linewrap: false,
      clearOnComplete: true,
      stopOnComplete: false,
      forceRedraw: true,
      gracefulExit: false,
      format: (_options, _params, payload) => this.#line((payload as { at: number }).at),
    })
    this.#onExit = () => stream.write(SHOW_CURSOR)
    process.on('exit', this.#onExit)
  }

  show(shown: Shown): void {
    this.#latest.set(shown)
    const wanted = progressLines(shown, this.#width).length
    while (this.#lines.length < wanted) this.#lines.push(this.#screen.create(1, 0, { at: this.#lines.length }))
  }

  /** Makes room for a line that is to be written above. */
  clear(): void {
    const { terminal } = this.#screen as unknown as { terminal: Terminal }
    terminal.cursorRelativeReset()
    terminal.clearBottom()
  }

  /** Takes the lines away. */
  stop(): void {
    process.off('exit', this.#onExit)
    if (this.#lines.length > 0) this.#screen.stop()
  }

  get #width(): number {
    // A line that fills the last cell wraps on some terminals.
    return (this.#stream.columns ?? WIDTH_WHEN_UNKNOWN) - 1
  }

  #line(at: number): string {
    const shown = this.#latest.get()
    return shown ? (progressLines(shown, this.#width)[at] ?? '') : ''
  }
}

/** What cli-progress has and its types do not say. */
interface Terminal {
  cursorRelativeReset(): void
  clearBottom(): void
}

/** A line a minute, where there is no terminal. */
export class ProgressLog {
  readonly #stream: NodeJS.WritableStream
  readonly #timer: NodeJS.Timeout
  readonly #latest = new Latest()

  constructor(stream: NodeJS.WritableStream = process.stderr) {
    this.#stream = stream
    // By a timer: a store that hangs must be seen to hang.
    this.#timer = setInterval(() => {
      const shown = this.#latest.get()
      if (shown) this.#stream.write(`Progress: ${progressSentence(shown)}\n`)
    }, LOG_MS)
    this.#timer.unref()
  }

  show(shown: Shown): void {
    this.#latest.set(shown)
  }

  /** Nothing stands where the next line comes. */
  clear(): void {}

  stop(): void {
    clearInterval(this.#timer)
  }
}
