import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { link, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { syncFolder } from '../../adapters/filesystem-paths.ts'
import { BackupError } from '../errors.ts'
import { makeFolders } from '../folders.ts'

/** What a marker says: somebody holds a server's saving off, or died while doing so. */
export interface Marking {
  /** `rcon`: save-off was sent to `where`. `command`: a command to hold `where`, a server, was run. */
  how: 'rcon' | 'command'
  /** `host:port`, or the server's name. */
  where: string
  /** Whose backup it was. */
  server: string
  /** ms since 1970. */
  since: number
  pid: number
  /** When the process began, as its kernel counts; null where that cannot be told. Pids are used again. */
  begun: string | null
  host: string
  nonce: string
}

export interface FoundMarking extends Marking {
  /** Whether whoever wrote it is still at work. */
  alive: boolean
}

const FOLDER = 'held'
/** The pid in a marker that was given up. */
const NOBODY = 0

function markerFile(stateFolder: string, how: Marking['how'], where: string): string {
  const name = createHash('sha256').update(where).digest('hex').slice(0, 24)
  return join(stateFolder, FOLDER, `${how}-${name}.json`)
}

/** A file in the state folder that says that saving is off, on the disk before it is, and until it is on again. */
export class Marker {
  readonly #file: string
  readonly #marking: Marking
  /** Whether somebody who died had left one. */
  readonly stale: boolean

  private constructor(file: string, marking: Marking, stale: boolean) {
    this.#file = file
    this.#marking = marking
    this.stale = stale
  }

  /**
   * Writes the marker, and syncs it to the disk.
   * @throws BackupError BUSY when a process that is still there holds it; QUIESCE when it cannot be written.
   */
  static async take(stateFolder: string, how: Marking['how'], where: string, server: string, now: number) {
    const file = markerFile(stateFolder, how, where)
    const nonce = randomUUID()
    const { pid } = process
    const marking: Marking = { how, where, server, since: now, pid, begun: processBegun(pid), host: hostname(), nonce }
    const temporary = `${file}.${nonce}`
    try {
      await makeFolders(join(stateFolder, FOLDER), 0o700)
      await syncFolder(stateFolder)
      const stale = await readMarking(file)
      if (stale?.alive) throw busy(stale)
      await writeSynced(temporary, `${JSON.stringify(marking)}\n`)
      // One that was left is replaced at once: there is no moment without a marker.
      if (stale) await rename(temporary, file)
      else await link(temporary, file)
      await syncFolder(join(stateFolder, FOLDER))
      return new Marker(file, marking, stale !== undefined)
    } catch (cause) {
      if (cause instanceof BackupError) throw cause
      const other = (cause as NodeJS.ErrnoException).code === 'EEXIST' ? await readMarking(file) : undefined
      if (other) throw busy(other)
      throw new BackupError(
        'QUIESCE',
        `The marker ${file} cannot be written (${(cause as Error).message}), and without it nothing would turn saving on again after a crash. Nothing was turned off.`,
        { cause },
      )
    } finally {
      await rm(temporary, { force: true }).catch(() => {})
    }
  }

  /** Removes the marker: saving is on again. One that another process has taken over stays. */
  async remove(): Promise<void> {
    if (await this.isOurs()) await rm(this.#file, { force: true })
  }

  /** Leaves the marker to whoever comes next, this process too: saving could not be turned on again. */
  async abandon(): Promise<void> {
    if (!(await this.isOurs())) return
    const temporary = `${this.#file}.${this.#marking.nonce}`
    await writeSynced(temporary, `${JSON.stringify({ ...this.#marking, pid: NOBODY })}\n`)
    await rename(temporary, this.#file)
  }

  /** Whether it is there, and was not taken over. */
  async isOurs(): Promise<boolean> {
    return (await readMarking(this.#file))?.nonce === this.#marking.nonce
  }
}

function busy({ where, pid, since }: Marking): BackupError {
  return new BackupError(
    'BUSY',
    `Another backup (process ${pid}) has held saving at ${where} off since ${new Date(since).toISOString()}. Wait for it; or, when there is none, run \`millrace resume-saving --force\`.`,
  )
}

/** The markers in a state folder; none when there is no folder. */
export async function listMarkings(stateFolder: string): Promise<FoundMarking[]> {
  const folder = join(stateFolder, FOLDER)
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw new BackupError('QUIESCE', `The state folder ${folder} cannot be read: ${(error as Error).message}.`)
  }
  const found = await Promise.all(
    names.filter((name) => name.endsWith('.json')).map((name) => readMarking(join(folder, name))),
  )
  return found.filter((one) => one !== undefined)
}

/** Removes a marker that was found, unless it is another one by now. */
export async function removeMarking(stateFolder: string, { how, where, nonce }: Marking): Promise<void> {
  const file = markerFile(stateFolder, how, where)
  if ((await readMarking(file))?.nonce === nonce) await rm(file, { force: true })
}

async function readMarking(file: string): Promise<FoundMarking | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new BackupError('QUIESCE', `The marker ${file} cannot be read: ${(error as Error).message}.`)
  }
  try {
    const marking = JSON.parse(text) as Marking
    if (typeof marking.where !== 'string' || typeof marking.nonce !== 'string') throw new Error('no marker')
    return { ...marking, alive: isAlive(marking) }
  } catch {
    // It appears whole or not at all, so this is none of ours; but somebody may have meant something by it.
    throw new BackupError(
      'QUIESCE',
      `The marker ${file} says nothing that can be read. Make sure that saving is on (save-on), and remove it.`,
    )
  }
}

function isAlive({ pid, begun, host }: Marking): boolean {
  if (pid === NOBODY) return false
  // Another container, or the same one made anew: its processes cannot be seen from here.
  if (host !== hostname()) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  return begun === null || begun === processBegun(pid)
}

/** When a process began, in the kernel's ticks since boot with the boot's own id; null where there is no /proc. */
function processBegun(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    // The name, in parentheses, may hold anything; the 20th field after it is the time.
    return `${boot} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`
  } catch {
    return null
  }
}

async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
}
