import cliProgress from 'cli-progress'
import type { Progress } from '../../transforms/index.ts'
import { formatBytes, formatDuration, formatRate } from './format.ts'

export type Shown = Progress & { storedBytes?: number }

/** One line on the terminal: how much, how fast, how long still. */
export class ProgressBar {
  readonly #bar = new cliProgress.SingleBar(
    {
      stream: process.stderr,
      format: '{bar} {percentage}% {detail}',
      barsize: 24,
      hideCursor: true,
      clearOnComplete: true,
      stopOnComplete: false,
      gracefulExit: false,
      fps: 5,
    },
    cliProgress.Presets.shades_classic,
  )
  #begun = false

  show(shown: Shown): void {
    // An unknown total keeps the bar empty; an estimate that was too low must not pass 100 %.
    const total = Math.max(shown.totalBytes ?? Number.MAX_SAFE_INTEGER, shown.bytes, 1)
    const detail = [
      formatBytes(shown.bytes),
      ...(shown.storedBytes === undefined ? [] : [`stored ${formatBytes(shown.storedBytes)}`]),
      formatRate(shown.bytesPerSecond),
      ...(shown.etaMs === undefined ? [] : [`${formatDuration(shown.etaMs)} left`]),
    ].join(', ')
    if (!this.#begun) {
      this.#begun = true
      this.#bar.start(total, shown.bytes, { detail })
      return
    }
    this.#bar.setTotal(total)
    this.#bar.update(shown.bytes, { detail })
  }

  clear(): void {
    if (this.#begun) process.stderr.write('\r\x1b[K')
  }

  stop(): void {
    if (this.#begun) this.#bar.stop()
  }
}
