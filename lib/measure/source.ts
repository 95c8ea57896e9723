import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { packFolder } from '../archive/pack.ts'
import type { WalkFilter } from '../archive/walk.ts'
import { openSelection, type SelectionOptions } from '../exclude.ts'
import { planBackup } from '../plan.ts'

const READ_BYTES = 512 * 1024
/** A folder that is much larger than what is read of it is read in so many places, each some neighbouring files. */
const STRETCHES = 16
/** Files differ in size: twice as many are chosen as would do on average. */
const SPARE = 2

/** A folder or file of which some is read, as a backup reads it. Nothing is ever written to it. */
export interface BenchSource {
  kind: 'folder' | 'file'
  path: string
  /** What a backup would read: of a folder, its archive. */
  bytes: number
  files: number
  /**
   * The bytes of some of it, the archive's own included. Two turns read other files where the folder is much larger than
   * what is wanted, so that the second does not find them in memory.
   */
  read(turn: 0 | 1, signal: AbortSignal | undefined): AsyncIterable<Buffer>
}

/**
 * Looks at what of a source a backup would read.
 * @param wantedBytes about what will be read of it at a time.
 * @throws BackupError SOURCE, USAGE; AbortError.
 */
export async function openBenchSource(
  path: string,
  selection: SelectionOptions,
  { wantedBytes, signal }: { wantedBytes: number; signal?: AbortSignal | undefined },
): Promise<BenchSource> {
  const { kind, bytes, files } = await planBackup(path, { ...selection, signal })
  if (kind === 'raw') {
    const read = () => createReadStream(path, { highWaterMark: READ_BYTES, ...(signal ? { signal } : {}) })
    return { kind: 'file', path, bytes, files, read }
  }
  const { judge } = await openSelection(path, selection)
  const takes: WalkFilter = (name, isFolder) => judge(name, isFolder) === undefined
  const wanted = bytes > 0 ? (SPARE * wantedBytes) / bytes : 1
  return { kind: 'folder', path, bytes, files, read }

  async function* read(turn: 0 | 1, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    for (const chosen of wanted < 0.5 ? chooseFiles(files, wanted, turn) : [() => true]) {
      const filter: WalkFilter = (name, isFolder) => takes(name, isFolder) && (isFolder || chosen())
      const pack = await packFolder(path, { filter, ...(signal ? { signal } : {}) })
      yield* pack.stream
    }
  }
}

/**
 * Chooses some of a folder's files, in stretches: first those, then, should they be smaller than was thought, all others.
 * @param share of the files, below a half.
 */
export function chooseFiles(files: number, share: number, turn: 0 | 1): (() => boolean)[] {
  const period = Math.max(1, Math.floor(files / STRETCHES))
  const length = Math.max(1, Math.round(period * share))
  const choice = (isMeant: (at: number) => boolean) => {
    let at = turn * Math.ceil(period / 2)
    return () => isMeant(at++ % period)
  }
  return [choice((at) => at < length), choice((at) => at >= length)]
}

/** Counts what this process reads from disks, where the system tells. */
export async function openDiskCounter(): Promise<{ share(bytes: number): Promise<number | null> }> {
  const begun = await diskBytes()
  return {
    async share(bytes) {
      const now = await diskBytes()
      if (begun === null || now === null || bytes === 0) return null
      return Math.min(1, (now - begun) / bytes)
    },
  }
}

/** proc_pid_io(5); there is none outside Linux, and not in every container. */
async function diskBytes(): Promise<number | null> {
  try {
    const found = /^read_bytes: (\d+)$/m.exec(await readFile('/proc/self/io', 'utf8'))
    return found ? Number(found[1]) : null
  } catch {
    return null
  }
}

/** Whether two paths are on one device, as far as the system says; of one that is not there yet, its folder. */
export async function onOneDevice(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([deviceOf(one), deviceOf(other)])
  return a !== undefined && a === b
}

async function deviceOf(path: string): Promise<number | undefined> {
  for (let at = resolve(path); ; at = dirname(at)) {
    const found = await stat(at).catch(() => undefined)
    if (found || at === dirname(at)) return found?.dev
  }
}
