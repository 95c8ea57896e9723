import { setTimeout as sleep } from 'node:timers/promises'
import { BackupError } from '../errors.ts'
import { Marker } from './marker.ts'
import type { QuiesceLevel, Quiescer } from './quiescer.ts'
import { addressText, openRcon, type Rcon, type RconAddress, shownAnswer } from './rcon.ts'

/*
 * save-off stops the autosave, `save-all flush` writes everything out and answers when it is on the disk, save-on goes
 * on. What the server answers is what counts: the texts below are those of Minecraft 1.7 to 1.21, of Paper and Fabric.
 * A server that stops forgets save-off.
 */

const OFF_ANSWER = /saving is now disabled|turned off world auto-saving|already turned off/i
const SAVED_ANSWER = /saved the (game|world)/i
const ON_ANSWER = /saving is now enabled|turned on world auto-saving|already turned on/i
const ALREADY_ON_ANSWER = /already turned on/i

const FLUSH_MS = 5 * 60_000
const RESUME_TRIES = 5
const RESUME_PAUSE_MS = 2_000

/** Where a Minecraft server's RCON is, and what to do when it does not answer. */
export interface MinecraftOptions extends RconAddress {
  /** `rcon.password` of server.properties. */
  password: string
  /** Whose backup it is; for the marker. */
  server: string
  /** Where the marker is kept while saving is off: a folder that outlives this process. */
  stateFolder: string
  /** Back up a server that is stopped (nothing listens), at the level `stopped`. Else that is an error. */
  allowStopped?: boolean | undefined
  /** Back up a server that takes the connection and says nothing, as a paused one, at the level `live`. */
  allowSilent?: boolean | undefined
  /** For connecting and logging in; 10 s when left out. */
  connectMs?: number | undefined
  /** For the answers to save-off and save-on; 30 s when left out. */
  commandMs?: number | undefined
  /** For the answer to `save-all flush`; 5 minutes when left out. */
  flushMs?: number | undefined
  /** Between two tries to turn saving on again, of five; 2 s when left out. */
  resumePauseMs?: number | undefined
  /** The time, in ms since 1970. */
  now?: (() => number) | undefined
}

export type SaveOnOptions = Pick<
  MinecraftOptions,
  'host' | 'port' | 'password' | 'connectMs' | 'commandMs' | 'resumePauseMs'
>

/**
 * Holds a Minecraft server still by RCON: `save-off`, `save-all flush`, and `save-on` when all is read. While saving is
 * off a marker lies in the state folder, and where one was left behind `save-on` is sent first.
 * @returns a quiescer whose `begin` throws BackupError SERVER_STOPPED, SERVER_SILENT, BUSY (another backup holds it),
 * QUIESCE (a wrong password, or answers that are not Minecraft's), and AbortError.
 */
export function createMinecraftQuiescer(options: MinecraftOptions): Quiescer {
  return new MinecraftQuiescer(options)
}

class MinecraftQuiescer implements Quiescer {
  readonly #options: MinecraftOptions
  #marker: Marker | undefined
  #level: QuiesceLevel = 'live'
  /** save-off was sent, and not answered. */
  #inDoubt = false
  /** The marker was left to whoever comes next. */
  #isLeft = false

  constructor(options: MinecraftOptions) {
    this.#options = options
  }

  async begin(signal?: AbortSignal): Promise<QuiesceLevel> {
    const rcon = await this.#open(signal)
    if (typeof rcon === 'string') {
      this.#level = rcon
      return rcon
    }
    try {
      this.#marker = await this.#mark()
      if (this.#marker.stale) await this.#command(rcon, 'save-on', ON_ANSWER, signal)
      this.#inDoubt = true
      await this.#command(rcon, 'save-off', OFF_ANSWER, signal)
      this.#inDoubt = false
      await this.#command(rcon, 'save-all flush', SAVED_ANSWER, signal)
    } finally {
      rcon.close()
    }
    this.#level = 'quiesced'
    return this.#level
  }

  async end(): Promise<'kept' | 'broken'> {
    if (!this.#marker) return this.#level === 'stopped' ? this.#stillStopped() : 'kept'
    if (this.#isLeft) {
      // Whoever has taken it over since has turned saving on, and may hold it off by now.
      if (!(await this.#marker.isOurs())) return 'broken'
      this.#marker = await this.#mark()
    }
    const marker = this.#marker
    try {
      let already = await saveOn(this.#options)
      if (this.#inDoubt) {
        // The server may have read this before the save-off that it did not answer: then that one came last.
        await sleep(this.#options.resumePauseMs ?? RESUME_PAUSE_MS)
        already = await saveOn(this.#options)
      }
      await marker.remove()
      return already ? 'broken' : 'kept'
    } catch (cause) {
      this.#isLeft = true
      await marker.abandon().catch(() => {})
      throw cause
    }
  }

  #mark(): Promise<Marker> {
    const { server, stateFolder, now = Date.now } = this.#options
    return Marker.take(stateFolder, 'rcon', addressText(this.#options), server, now())
  }

  async #open(signal: AbortSignal | undefined): Promise<Rcon | QuiesceLevel> {
    try {
      return await openRcon({ ...this.#options, signal })
    } catch (error) {
      const code = error instanceof BackupError ? error.code : undefined
      if (code === 'SERVER_STOPPED' && this.#options.allowStopped) return 'stopped'
      if (code === 'SERVER_SILENT' && this.#options.allowSilent) return 'live'
      throw error
    }
  }

  async #stillStopped(): Promise<'kept' | 'broken'> {
    try {
      const rcon = await openRcon(this.#options)
      rcon.close()
    } catch (error) {
      if (error instanceof BackupError && error.code === 'SERVER_STOPPED') return 'kept'
    }
    return 'broken'
  }

  async #command(rcon: Rcon, command: string, good: RegExp, signal: AbortSignal | undefined): Promise<void> {
    const { commandMs, flushMs = FLUSH_MS } = this.#options
    const timeoutMs = command === 'save-off' || command === 'save-on' ? commandMs : flushMs
    expectAnswer(await rcon.command(command, { timeoutMs, signal }), command, good, this.#options)
  }
}

/**
 * Turns saving on, however often it takes (five tries at most).
 * @returns whether it was on already.
 * @throws BackupError QUIESCE, which says what to do.
 */
export async function saveOn(options: SaveOnOptions): Promise<boolean> {
  const { commandMs: timeoutMs, resumePauseMs = RESUME_PAUSE_MS } = options
  for (let tries = 1; ; tries += 1) {
    try {
      const rcon = await openRcon(options)
      try {
        const answer = await rcon.command('save-on', { timeoutMs })
        expectAnswer(answer, 'save-on', ON_ANSWER, options)
        return ALREADY_ON_ANSWER.test(answer)
      } finally {
        rcon.close()
      }
    } catch (cause) {
      if (tries < RESUME_TRIES) {
        await sleep(resumePauseMs)
        continue
      }
      throw new BackupError(
        'QUIESCE',
        `Saving at ${addressText(options)} could not be turned on again: ${(cause as Error).message} A server that starts anew saves; otherwise run \`millrace resume-saving\`, or save-on at its console. The next backup tries it first.`,
        { cause },
      )
    }
  }
}

function expectAnswer(answer: string, command: string, good: RegExp, address: RconAddress): void {
  if (good.test(answer)) return
  throw new BackupError(
    'QUIESCE',
    `The server at ${addressText(address)} answered ${command} with ${shownAnswer(answer)}, which does not say that it was done.`,
  )
}
