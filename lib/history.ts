import { randomBytes } from 'node:crypto'
import { type FileHandle, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { explain } from './archive/io.ts'
import { BackupError } from './errors.ts'
import { makeFolders } from './folders.ts'

// What came of the runs of this machine, one JSON object a line in history.jsonl of the state folder. A file that has
// become large is renamed to history.<time>-<random>.jsonl, and the oldest of those are removed. Nothing is locked:
// a line is one write with O_APPEND, a name is taken once, and whoever still has a renamed file open adds to that one,
// which is read all the same. What can be lost is the line of a process that was halted between opening the file and
// writing to it, for so long that the file was filled, renamed and removed meanwhile: thousands of runs.

/** The commands that record their runs. */
export type RunCommand = 'backup' | 'prune' | 'verify' | 'restore'
/** How a run ended; `incomplete`: done, but something is missing. */
export type RunOutcome = 'ok' | 'incomplete' | 'failed' | 'interrupted'

/** What came of one run of a command for one server. */
export interface RunRecord {
  /** When it ended: ISO 8601, UTC. */
  at: string
  command: RunCommand
  server: string
  outcome: RunOutcome
  /** The exit code that it was worth; see `millrace --help`. */
  exitCode: number
  /** The snapshot's. */
  id?: string
  /** Stores by their locations, which hold no credentials, and whether all went well there. */
  destinations?: { destination: string; ok: boolean }[]
  /** The archive's bytes, and the object's. */
  bytes?: number
  storedBytes?: number
  /** What the work took, in ms: of a backup, the snapshot without what came after it. */
  elapsedMs: number
  files?: number
  consistency?: string
  /** Snapshots that were removed. */
  removed?: number
  error?: { code: string; message: string } | undefined
}

/** A run as it stands in the log. */
export interface RecordedRun extends RunRecord {
  v: 1
}

export interface HistoryLimits {
  /** A file that has become larger is put aside. */
  fileBytes?: number | undefined
  /** What those that were put aside may have together. */
  totalBytes?: number | undefined
}

const FILE = 'history.jsonl'
const ASIDE = /^history\.(\d{4}-\d\d-\d\dT[\d-]+\.\d{3}Z)-[0-9a-f]{8}\.jsonl$/
/** A run has some 300 bytes: three years of one an hour. */
const LIMITS = { fileBytes: 1024 * 1024, totalBytes: 8 * 1024 * 1024 }
const MESSAGE_MAX_CHARACTERS = 1000
const LINE_FEED = 0x0a

const COMMANDS: readonly unknown[] = ['backup', 'prune', 'verify', 'restore'] satisfies RunCommand[]
const OUTCOMES: readonly unknown[] = ['ok', 'incomplete', 'failed', 'interrupted'] satisfies RunOutcome[]

/**
 * Adds a run to the log. Several processes may do so at once.
 * @param stateFolder is made when it is not there, for its owner alone, as the log is.
 * @throws the error of node:fs when it cannot be written; the run itself is no worse for it.
 */
export async function recordRun(stateFolder: string, run: RunRecord, limits: HistoryLimits = {}): Promise<void> {
  const { fileBytes = LIMITS.fileBytes, totalBytes = LIMITS.totalBytes } = limits
  await makeFolders(stateFolder, 0o700)
  const path = join(stateFolder, FILE)
  const handle = await open(path, 'a+', 0o600)
  let size: number
  try {
    const before = (await handle.stat()).size
    // What a crash has torn off must not take the next line with it. One line feed too many is skipped.
    const torn = before > 0 && (await lastByte(handle, before)) !== LINE_FEED
    const line = Buffer.from(`${torn ? '\n' : ''}${JSON.stringify(fieldsOf(run))}\n`)
    const { bytesWritten } = await handle.write(line)
    if (bytesWritten < line.length) throw new Error(`Only ${bytesWritten} of ${line.length} bytes were written`)
    size = before + line.length
  } finally {
    await handle.close()
  }
  if (size > fileBytes) await putAside(stateFolder, fileBytes, totalBytes)
}

async function lastByte(handle: FileHandle, size: number): Promise<number | undefined> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(1), 0, 1, size - 1)
  return bytesRead === 1 ? buffer[0] : LINE_FEED
}

/** Only what is named here gets into the file, whatever else the object has. */
function fieldsOf(run: RunRecord): RecordedRun {
  const { at, command, server, outcome, exitCode, id, destinations, bytes, storedBytes, elapsedMs } = run
  const { files, consistency, removed, error } = run
  return {
    ...{ v: 1, at, command, server, outcome, exitCode },
    ...(id !== undefined && { id }),
    ...(destinations && { destinations: destinations.map(({ destination, ok }) => ({ destination, ok })) }),
    ...(bytes !== undefined && { bytes }),
    ...(storedBytes !== undefined && { storedBytes }),
    elapsedMs: Math.round(elapsedMs),
    ...(files !== undefined && { files }),
    ...(consistency !== undefined && { consistency }),
    ...(removed !== undefined && { removed }),
    ...(error && { error: { code: error.code, message: error.message.slice(0, MESSAGE_MAX_CHARACTERS) } }),
  }
}

async function putAside(folder: string, fileBytes: number, totalBytes: number): Promise<void> {
  const name = `history.${new Date().toISOString().replaceAll(':', '-')}-${randomBytes(4).toString('hex')}.jsonl`
  try {
    // When another process is faster in between, this moves the few lines since: a new name harms nothing.
    const path = join(folder, FILE)
    if ((await stat(path)).size > fileBytes) await rename(path, join(folder, name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  let left = totalBytes
  for (const old of (await asideIn(folder)).reverse()) {
    const path = join(folder, old)
    left -= (await stat(path).catch(() => ({ size: 0 }))).size
    if (left < 0) await rm(path, { force: true })
  }
}

/** Oldest first. */
async function asideIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => ASIDE.test(name)).sort()
}

interface RunFilter {
  server?: string | undefined
  since?: Date | undefined
}

/**
 * Reads the log lazily, oldest run first. Lines that are torn, or that something else has written, are skipped.
 * @param only `server`: only its runs; `since`: only runs that ended then or later.
 * @throws BackupError JOURNAL when a file is there and cannot be read; no log is no runs.
 */
export async function* readRuns(stateFolder: string, only: RunFilter = {}): AsyncGenerator<RecordedRun> {
  try {
    yield* runsOf(stateFolder, only)
  } catch (cause) {
    throw new BackupError('JOURNAL', `${explain(`The history in ${stateFolder} cannot be read`, cause)}.`, { cause })
  }
}

async function* runsOf(stateFolder: string, { server, since }: RunFilter): AsyncGenerator<RecordedRun> {
  // Opened before the others are listed: when it is put aside in between, it is still read, and once.
  const newest = await openIfThere(join(stateFolder, FILE))
  try {
    const own = await newest?.stat()
    const aside = await asideIn(stateFolder).catch(ignoreAbsence)
    for (const name of aside ?? []) {
      const handle = await openIfThere(join(stateFolder, name))
      if (!handle) continue
      try {
        const { dev, ino } = await handle.stat()
        if (own && own.dev === dev && own.ino === ino) continue
        yield* runsIn(handle, server, since)
      } finally {
        await handle.close()
      }
    }
    if (newest) yield* runsIn(newest, server, since)
  } finally {
    await newest?.close()
  }
}

async function* runsIn(
  handle: FileHandle,
  server: string | undefined,
  since: Date | undefined,
): AsyncGenerator<RecordedRun> {
  const input = handle.createReadStream({ autoClose: false, start: 0, encoding: 'utf8' })
  try {
    for await (const line of linesOf(input)) {
      const run = parseRun(line)
      if (!run || (server !== undefined && run.server !== server)) continue
      if (since === undefined || Date.parse(run.at) >= since.getTime()) yield run
    }
  } finally {
    input.destroy()
  }
}

/** Not by node:readline: it ends lines at U+2028 and U+2029 too, which JSON has as they are. */
async function* linesOf(input: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = ''
  for await (const chunk of input) {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() as string
    yield* lines
  }
  yield rest
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  return open(path, 'r').catch(ignoreAbsence)
}

function ignoreAbsence(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

function parseRun(line: string): RecordedRun | undefined {
  try {
    const run = JSON.parse(line) as RecordedRun | null
    if (run?.v !== 1 || !COMMANDS.includes(run.command) || !OUTCOMES.includes(run.outcome)) return undefined
    const isWhole =
      typeof run.server === 'string' &&
      typeof run.at === 'string' &&
      !Number.isNaN(Date.parse(run.at)) &&
      isCount(run.exitCode) &&
      isCount(run.elapsedMs) &&
      [run.bytes, run.storedBytes, run.files, run.removed].every((one) => one === undefined || isCount(one)) &&
      [run.id, run.consistency].every((one) => one === undefined || typeof one === 'string') &&
      (run.destinations === undefined || isDestinations(run.destinations)) &&
      (run.error === undefined || (typeof run.error?.code === 'string' && typeof run.error.message === 'string'))
    return isWhole ? run : undefined
  } catch {
    return undefined
  }
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isDestinations(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.every((one) => typeof one?.destination === 'string' && typeof (one as { ok?: unknown }).ok === 'boolean')
  )
}
