import { BackupError } from './errors.ts'

const UNIT_MS: Record<string, number> = { w: 604_800_000, d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 }
/** What is written of a length of time; whether it is one at all, and not 0, `parseDuration` says. */
export const DURATION = /^(?!$)(?:\d+w)?(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?$/

/** 24 days. A timer that is told to wait longer fires at once. */
const TIMER_MAX_MS = 2 ** 31 - 1

/** As long as a timer can wait: for a limit that somebody has set so high that it is none. */
export function timerMs(ms: number): number {
  return Math.min(ms, TIMER_MAX_MS)
}

/** So late a timer comes only where the process, or the machine, was stopped meanwhile: not where it is busy. */
const STOPPED_MS = 1000

/**
 * A limit of time for somebody else's answer. Where this process was stopped meanwhile (a container that was paused, a
 * laptop that slept), the answer may be there and not read yet: then the limit begins anew.
 * @returns what takes it back.
 */
export function startLimit(ms: number, onOver: () => void): () => void {
  let timer: NodeJS.Timeout
  const arm = () => {
    const due = performance.now() + timerMs(ms)
    timer = setTimeout(() => (performance.now() - due > STOPPED_MS ? arm() : onOver()), timerMs(ms))
  }
  arm()
  return () => clearTimeout(timer)
}

/**
 * Reads a length of time: whole numbers with w, d, h, m or s, the largest first, such as `14d` or `1d12h`.
 * @returns milliseconds.
 * @throws BackupError USAGE for anything else, and for no time at all.
 */
export function parseDuration(text: string): number {
  const parts = DURATION.test(text) ? (text.match(/\d+[wdhms]/g) ?? []) : []
  const ms = parts.reduce((sum, part) => sum + Number(part.slice(0, -1)) * (UNIT_MS[part.slice(-1)] as number), 0)
  if (ms > 0 && Number.isSafeInteger(ms)) return ms
  throw new BackupError(
    'USAGE',
    `${JSON.stringify(text)} is not a length of time. Write whole numbers with w, d, h, m or s, such as 14d or 1d12h.`,
  )
}
