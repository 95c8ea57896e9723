import type { ArchiveWarning } from '../archive/entry.ts'
import { timerMs } from '../duration.ts'
import { BackupError } from '../errors.ts'

/**
 * How still the source is while it is read:
 * - `stopped`: nothing runs that writes to it
 * - `snapshot`: what is read is a snapshot of the file system
 * - `quiesced`: the server runs, has written everything out, and writes nothing until it is told to
 * - `live`: nothing is known
 */
export type QuiesceLevel = 'stopped' | 'snapshot' | 'quiesced' | 'live'

const LEVELS: readonly unknown[] = ['stopped', 'snapshot', 'quiesced', 'live'] satisfies QuiesceLevel[]

/** Brings whoever writes to the source to rest for as long as it is read. */
export interface Quiescer {
  /**
   * Brings it to rest. When it rejects, `end` is called all the same.
   * @returns what has been reached.
   */
  begin(signal?: AbortSignal): Promise<QuiesceLevel>
  /**
   * Lets it go on. Is never aborted: it has time limits of its own.
   * @returns whether the rest lasted from `begin` until now, as far as can be told.
   * @throws when it could not be made sure that the writer goes on. Then it is called once more when all else is done.
   */
  end(): Promise<'kept' | 'broken'>
}

/** How a backup was held still, in the result of `create`. */
export interface QuiesceOutcome {
  /** What `begin` reached. */
  level: QuiesceLevel
  /** Whether it lasted until everything was read. */
  kept: boolean
  /** false: the writer could not be told to go on. Saving may still be off. */
  resumed: boolean
}

export interface HoldOptions {
  /** Longer than this the writer is not held, however long the backup takes; 30 minutes when left out. */
  limitMs?: number | undefined
  onWarning: (warning: ArchiveWarning) => void
  signal?: AbortSignal | undefined
}

export const HOLD_LIMIT_MS = 30 * 60_000

type Warn = (message: string, cause?: unknown) => void

/** A source that is held still, until `release`. */
export class Hold {
  readonly level: QuiesceLevel
  readonly #quiescer: Quiescer
  readonly #warn: Warn
  readonly #watchdog: NodeJS.Timeout
  #overdue = false
  #kept = true
  #resumed = true
  #released: Promise<void> | undefined
  #ended: Promise<void> | undefined

  private constructor(quiescer: Quiescer, level: QuiesceLevel, limitMs: number, warn: Warn) {
    this.#quiescer = quiescer
    this.level = level
    this.#warn = warn
    this.#watchdog = setTimeout(() => {
      this.#overdue = true
      warn(`The source was to be held for ${limitMs / 1000} s at most, and is still read: its server goes on writing`)
      void this.release()
    }, timerMs(limitMs))
  }

  /**
   * Brings a source to rest.
   * @throws what the quiescer throws, and BackupError USAGE for a `begin` that gives no level; it was told to end then.
   * BackupError USAGE for a limit that is not above 0.
   */
  static async begin(quiescer: Quiescer, options: HoldOptions): Promise<Hold> {
    const { limitMs = HOLD_LIMIT_MS, onWarning, signal } = options
    if (!(limitMs > 0)) throw new BackupError('USAGE', 'quiesceLimitMs, how long a source is held at most, is above 0.')
    const warn = (message: string, cause?: unknown) => onWarning({ kind: 'quiesce', path: '', message, cause })
    try {
      const level = await quiescer.begin(signal)
      // Of a program without types: the snapshot says it of itself, and one that says nothing cannot be opened again.
      if (!LEVELS.includes(level)) {
        throw new BackupError(
          'USAGE',
          `The quiescer’s begin has to give one of ${LEVELS.join(', ')}: what it has reached.`,
        )
      }
      return new Hold(quiescer, level, limitMs, warn)
    } catch (error) {
      await quiescer.end().catch((cause) => warn((cause as Error).message, cause))
      throw error
    }
  }

  /** Lets the writer go on, once. Never rejects: what fails is a warning, and in the outcome. */
  release(): Promise<void> {
    this.#released ??= this.#end()
    return this.#released
  }

  /**
   * When all else is done: releases it, and where that was tried before and failed, tries once more. What kept it from
   * being told may be over since, as a network that was not back yet when the machine woke. Never rejects.
   */
  end(): Promise<void> {
    this.#ended ??= this.#released === undefined ? this.release() : this.#again()
    return this.#ended
  }

  /** How it went. Before it was released: so far. */
  outcome(): QuiesceOutcome {
    return { level: this.level, kept: this.#kept && !this.#overdue, resumed: this.#resumed }
  }

  async #again(): Promise<void> {
    await this.release()
    if (this.#resumed) return
    try {
      await this.#quiescer.end()
      this.#resumed = true
      this.#warn('The server could be told to go on at the end of the backup')
    } catch {
      // As was said.
    }
  }

  async #end(): Promise<void> {
    clearTimeout(this.#watchdog)
    try {
      if ((await this.#quiescer.end()) === 'kept') return
      this.#kept = false
      if (!this.#overdue) this.#warn('The source was not held still all the time: its server wrote to it, or may have')
    } catch (cause) {
      // It was still at rest, for all that is known; but nothing says so.
      this.#kept = false
      this.#resumed = false
      this.#warn((cause as Error).message, cause)
    }
  }
}

/**
 * The `consistency` of a snapshot: FORMAT.md, 3.2.
 * @param changed files whose stored copy is of no one moment.
 * @param reread files that changed while they were read, and held still when they were read again.
 */
export function consistencyOf(hold: QuiesceOutcome | undefined, changed: number, reread: number): string {
  if (changed > 0) return `live-changed ${changed}`
  if (!hold?.kept || hold.level === 'live') return 'live'
  return reread > 0 ? `${hold.level}-reread ${reread}` : hold.level
}
