import { randomBytes } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rename, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { syncFolder as syncNames } from '../adapters/filesystem-paths.ts'
import { targetError } from './archive/io.ts'
import { BackupError } from './errors.ts'
import { makeAround, type Place } from './place.ts'
import { removeTree } from './remove-tree.ts'

/*
 * A staging folder holds what is being restored until it is whole:
 *
 *   .NAME.millrace-HEX/
 *     restore.json   the record: whose it is, what it is of, how far it is
 *     tree           what is being built, a folder or a file
 *     old            what stood in its place, from the moment it is moved aside until the new one is there
 *
 * The record is replaced atomically and reaches the disk before what it tells of goes on, so that whatever moment a
 * process or a machine stops at, the next restore to the same target knows what to do with the folder.
 */

const RECORD = 'restore.json'
const HEARTBEAT_MS = 60_000
/** A holder on another machine that has been silent this long is gone. */
const SILENT_MS = 15 * 60_000

/** What a restore is of. Only a restore of the very same may go on with what another left. */
export type Job = Record<string, unknown>

export interface StagingRecord {
  v: 1
  host: string
  pid: number
  /** When that process began, as its system counts; null where it cannot be told. */
  born: string | null
  job: Job
  /**
   * `building`: the tree is not whole, or nothing at the target has been touched. `aside`: what stands at the target is
   * being moved away, name by name (inside a target only). `placing`: the tree is being moved into place. `merging`:
   * its files are.
   */
  phase: 'building' | 'aside' | 'placing' | 'merging'
  /** How far it is, in the job's own measure: everything before it is on the disk. */
  mark: number
  /** `aside`: the names there were. */
  names?: string[]
  /** Mode and time of the restored folder itself, where the tree's own cannot become the target's. */
  root?: { mode: number; mtime: number }
}

/** Staging folders that this process is at work in. */
const active = new Set<string>()

export class Staging {
  readonly path: string
  record: StagingRecord
  readonly #heart: NodeJS.Timeout

  constructor(path: string, record: StagingRecord) {
    this.path = path
    this.record = record
    active.add(path)
    this.#heart = setInterval(
      () => void utimes(join(path, RECORD), new Date(), new Date()).catch(() => {}),
      HEARTBEAT_MS,
    )
    this.#heart.unref()
  }

  get tree(): string {
    return join(this.path, 'tree')
  }

  get old(): string {
    return join(this.path, 'old')
  }

  /** Changes the record; on the disk when it returns. */
  async note(change: Partial<StagingRecord>): Promise<void> {
    this.record = { ...this.record, ...change }
    await writeRecord(this.path, this.record).catch((error: unknown) => {
      throw targetError(this.path, error)
    })
  }

  /** Leaves the folder for the next restore. */
  release(): void {
    clearInterval(this.#heart)
    active.delete(this.path)
  }

  /** Removes the folder and everything in it. */
  async discard(): Promise<void> {
    await removeTree(this.path)
    this.release()
  }
}

/**
 * Makes a new staging folder for a place; its record is in it from its first moment.
 * @throws BackupError TARGET when it cannot be made.
 */
export async function newStaging(place: Place, job: Job): Promise<Staging> {
  await makeAround(place)
  const path = join(place.around, `${place.prefix}${randomBytes(6).toString('hex')}`)
  const unnamed = `${path}.${process.pid}.new`
  const record: StagingRecord = { v: 1, ...(await whoAmI()), job, phase: 'building', mark: 0 }
  try {
    await mkdir(unnamed, { mode: 0o700 })
    try {
      await writeRecord(unnamed, record)
      await rename(unnamed, path)
    } catch (error) {
      await removeTree(unnamed)
      throw error
    }
  } catch (cause) {
    throw new BackupError('TARGET', `Nothing can be built in ${place.around}: ${(cause as Error).message}.`, { cause })
  }
  return new Staging(path, record)
}

/**
 * Takes over the staging folders that earlier restores to a place left. Those that somebody else may have planted there
 * are left alone.
 * @returns them; each is this process's now, to be finished, resumed or discarded.
 * @throws BackupError TARGET when another restore to the same place is at work.
 */
export async function takeOver(place: Place): Promise<Staging[]> {
  const taken: Staging[] = []
  for (const name of await readdir(place.around).catch(() => [])) {
    if (!name.startsWith(place.prefix)) continue
    const rest = name.slice(place.prefix.length)
    const path = join(place.around, name)
    const unnamed = /^[0-9a-f]{12}\.(\d+)\.new$/.exec(rest)
    if (!(await isTrusted(path, place.around))) continue
    if (unnamed && !(await isAlive(Number(unnamed[1]), null))) await removeTree(path)
    if (!/^[0-9a-f]{12}$/.test(rest)) continue
    const record = await readRecord(path)
    // Its record is the first thing in it, and the last that goes: without one it is being removed, or was.
    if (!record) {
      await removeTree(path)
      continue
    }
    if (await isHeld(path, record)) {
      for (const one of taken) one.release()
      throw new BackupError(
        'TARGET',
        `Another restore to ${place.path} is at work (process ${record.pid} on ${record.host}). Wait for it; if it is gone, remove ${path} and try again.`,
      )
    }
    const own = join(place.around, `${place.prefix}${randomBytes(6).toString('hex')}`)
    // Of several that see it abandoned, one gets it.
    if (
      !(await rename(path, own).then(
        () => true,
        () => false,
      ))
    )
      continue
    const staging = new Staging(own, record)
    await staging.note(await whoAmI())
    taken.push(staging)
  }
  return taken
}

/**
 * Whether a folder is of whoever runs this, or of who may do as they please here anyway. In one that all may write to, as
 * /tmp, others can make one of the right name: with a symlink in the place of the record that is written, or what they
 * want to be put at the target.
 */
async function isTrusted(path: string, around: string): Promise<boolean> {
  try {
    const found = await lstat(path)
    if (!found.isDirectory()) return false
    const { uid, mode } = await stat(around)
    return found.uid === (process.getuid?.() ?? found.uid) || found.uid === uid || (mode & 0o022) === 0
  } catch (error) {
    // Of several that see it abandoned, another one was faster.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw targetError(path, error)
  }
}

async function isHeld(path: string, { host, pid, born }: StagingRecord): Promise<boolean> {
  if (host !== hostname()) {
    const { mtimeMs } = await stat(join(path, RECORD)).catch(() => ({ mtimeMs: 0 }))
    return Date.now() - mtimeMs < SILENT_MS
  }
  if (pid === process.pid && born === (await bornAt(pid))) return active.has(path)
  return isAlive(pid, born)
}

async function isAlive(pid: number, born: string | null): Promise<boolean> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  // A number is given to another process in time.
  const now = await bornAt(pid)
  return born === null || now === null || now === born
}

async function whoAmI(): Promise<Pick<StagingRecord, 'host' | 'pid' | 'born'>> {
  return { host: hostname(), pid: process.pid, born: await bornAt(process.pid) }
}

/** When a process began: the boot it is of, and the ticks since. proc(5), /proc/pid/stat, field 22. */
async function bornAt(pid: number): Promise<string | null> {
  try {
    const line = await readFile(`/proc/${pid}/stat`, 'utf8')
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
    // The second field is a name in brackets, which may hold anything.
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
    // A killed process that nobody has waited for yet still has its number.
    return fields[0] === 'Z' || fields[0] === 'X' ? 'ended' : `${boot.trim()}/${fields[19]}`
  } catch {
    return null
  }
}

async function readRecord(folder: string): Promise<StagingRecord | null> {
  try {
    const record = JSON.parse(await readFile(join(folder, RECORD), 'utf8')) as StagingRecord
    return record.v === 1 && typeof record.mark === 'number' ? record : null
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (error instanceof SyntaxError || code === 'ENOENT') return null
    throw new BackupError('TARGET', `The staging folder ${folder} cannot be read: ${message}.`, { cause: error })
  }
}

async function writeRecord(folder: string, record: StagingRecord): Promise<void> {
  const path = join(folder, RECORD)
  const file = await open(`${path}.new`, 'w', 0o600)
  try {
    await file.writeFile(JSON.stringify(record))
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
  await syncFolder(folder)
}

/** Makes renames in a folder last. @throws BackupError TARGET. */
export async function syncFolder(path: string): Promise<void> {
  // Windows opens no folders.
  if (process.platform === 'win32') return
  await syncNames(path).catch((error: unknown) => {
    throw targetError(path, error)
  })
}
