import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { beginThread } from '../../transforms/thread.ts'
import type { Meta } from './attributes.ts'
import { nsToTimeArgument } from './entry.ts'
import { targetError } from './io.ts'
import type { TargetRights } from './rights.ts'
import type { Attribute } from './shortfalls.ts'

/** What a batch's content has to fit into. */
const LANE_BYTES = 512 * 1024
/** One batch is filled while others are written. */
const LANES = 3
const BATCH_FILES = 128
/** Files that a turn of the thread brings onto the disk. */
const SYNC_FILES = 64
/** A disk that takes so long for a file is faster with several at a time, from the thread pool. */
const SLOW_SYNC_MS = 0.4

/** Numbers a file: bytes, mode, uid, gid, and the time in seconds, or in ms where it is before 1970. */
export const FIELDS = 5

/** What a batch is read from, in memory that both threads see. */
export interface WriteMemory {
  numbers: SharedArrayBuffer
  data: SharedArrayBuffer
}

export type SmallWriteRequest =
  | { kind: 'write'; lane: number; paths: string[]; rights: TargetRights }
  | { kind: 'sync'; paths: string[] }

export interface SmallWriteAnswer {
  kind: 'write' | 'sync'
  /** The numbers of those that could not be done: nothing of them is there. */
  failed: number[]
  /** Of those that were written: what the file system did not keep. */
  missed: [number, Attribute[]][]
  /** The first that the disk did not take. Only its first sync says so: asked again, Linux says that all is well. */
  lost?: { index: number; code: string | undefined; message: string } | undefined
  ms: number
}

/** A batch. Of each file no more is kept than has to be: there are hundreds of thousands. */
interface Lane {
  number: number
  numbers: Float64Array
  data: Buffer
  used: number
  paths: string[]
  metas: Meta[]
}

/** What is told of each file. */
export interface SmallWritesTold {
  written: (path: string) => void
  /** The file system did not keep all of it. */
  missed: (path: string, attributes: Attribute[]) => void
  /** It is to be written by who asked, who finds out why: nothing of it is there. The data is the teller's until it returns. */
  refused: (path: string, meta: Meta, data: Buffer) => void
}

/**
 * Writes small files in batches, on a thread of its own with synchronous calls: new files only, in folders that are
 * there. Six turns through the thread pool for each of a hundred thousand files take five times as long as the kernel
 * needs for them.
 */
export class SmallWrites {
  readonly #root: string
  readonly #rights: TargetRights
  readonly #told: SmallWritesTold
  /** undefined where there is none to be had. */
  readonly #worker: Worker | undefined
  readonly #free: Lane[]
  #filling: Lane | undefined
  /** Batches that the thread has, in order. */
  readonly #underWay: Lane[] = []
  readonly #syncs: { paths: string[]; settle: (failed: string[]) => void; reject: (error: unknown) => void }[] = []
  readonly #paths = new Set<string>()
  /** Who waits for a batch to be done. */
  readonly #waiting: (() => void)[] = []
  #broken = false
  #syncsSlowly = false

  /** @param root what the paths are relative to. */
  constructor(root: string, rights: TargetRights, told: SmallWritesTold) {
    this.#root = root
    this.#rights = rights
    this.#told = told
    const memory: WriteMemory[] = Array.from({ length: LANES }, () => ({
      numbers: new SharedArrayBuffer(BATCH_FILES * FIELDS * 8),
      data: new SharedArrayBuffer(LANE_BYTES),
    }))
    this.#free = memory.map(({ numbers, data }, number) => ({
      ...{ number, numbers: new Float64Array(numbers), data: Buffer.from(data) },
      ...{ used: 0, paths: [], metas: [] },
    }))
    this.#worker = beginThread(import.meta.url, 'small-writes-worker', memory)
    this.#broken = this.#worker === undefined
    this.#worker?.on('message', (answer: SmallWriteAnswer) => this.#answered(answer))
    this.#worker?.on('error', () => this.#break())
    this.#worker?.on('exit', () => this.#break())
  }

  /** Whether it is of use: false when the thread has died. */
  get isAlive(): boolean {
    return !this.#broken
  }

  /** Whether the thread is as quick with it as the pool. */
  get syncsQuickly(): boolean {
    return !this.#broken && !this.#syncsSlowly
  }

  /** Whether a file of this path is on its way. */
  has(path: string): boolean {
    return this.#paths.has(path)
  }

  /**
   * Takes a file, and waits while enough others are under way.
   * @param data copied; at most LANE_BYTES.
   */
  async add(path: string, meta: Meta, data: Buffer): Promise<void> {
    if (this.#filling && this.#filling.used + data.length > LANE_BYTES) this.flush()
    while (!this.#filling && !this.#broken) {
      this.#filling = this.#free.pop()
      if (!this.#filling) await this.#turn()
    }
    const lane = this.#filling
    if (!lane) {
      this.#told.refused(path, meta, data)
      return
    }
    const { mode, uid, gid, mtimeNs } = meta
    const time = nsToTimeArgument(mtimeNs)
    const shown = mode & (this.#rights.specialBits ? 0o7777 : 0o777)
    lane.numbers.set([data.length, shown, uid, gid, Number(time)], lane.paths.length * FIELDS)
    data.copy(lane.data, lane.used)
    lane.used += data.length
    lane.paths.push(path)
    lane.metas.push(meta)
    this.#paths.add(path)
    if (lane.paths.length === BATCH_FILES) this.flush()
  }

  /** Has what was added so far written now. */
  flush(): void {
    const lane = this.#filling
    if (!lane) return
    this.#filling = undefined
    this.#underWay.push(lane)
    if (this.#broken) this.#settleAll()
    else this.#ask({ kind: 'write', lane: lane.number, paths: this.#absolute(lane.paths), rights: this.#rights })
  }

  /** Waits until all that was added is written or refused. */
  async idle(): Promise<void> {
    this.flush()
    while (this.#underWay.length > 0) await this.#turn()
  }

  /**
   * Brings files onto the disk.
   * @returns those that it could not open, and those that are for the thread pool.
   * @throws BackupError TARGET for one that the disk did not take.
   */
  async sync(paths: string[]): Promise<string[]> {
    const left: string[] = []
    for (let at = 0; at < paths.length; at += SYNC_FILES) {
      const some = paths.slice(at, at + SYNC_FILES)
      left.push(...(this.syncsQuickly ? await this.#syncSome(some) : some))
    }
    return left
  }

  /** Ends the thread. What it had is refused. */
  async close(): Promise<void> {
    await this.#worker?.terminate()
    this.#break()
  }

  #syncSome(paths: string[]): Promise<string[]> {
    return new Promise((settle, reject) => {
      this.#syncs.push({ paths, settle, reject })
      this.#ask({ kind: 'sync', paths: this.#absolute(paths) })
    })
  }

  #absolute(paths: readonly string[]): string[] {
    return paths.map((path) => join(this.#root, path))
  }

  #ask(request: SmallWriteRequest): void {
    this.#worker?.postMessage(request)
  }

  #answered({ kind, failed, missed, lost, ms }: SmallWriteAnswer): void {
    if (kind === 'sync') {
      const sync = this.#syncs.shift()
      if (!sync) return
      this.#syncsSlowly = ms / sync.paths.length > SLOW_SYNC_MS
      if (lost) {
        const error = Object.assign(new Error(lost.message), { code: lost.code })
        sync.reject(targetError(sync.paths[lost.index] as string, error))
      } else sync.settle(failed.map((index) => sync.paths[index] as string))
      return
    }
    const lane = this.#underWay.shift()
    if (!lane) return
    for (const [index, attributes] of missed) this.#told.missed(lane.paths[index] as string, attributes)
    this.#settle(lane, new Set(failed))
  }

  #settle(lane: Lane, failed: ReadonlySet<number> | 'all'): void {
    let at = 0
    for (const [index, path] of lane.paths.entries()) {
      const bytes = lane.numbers[index * FIELDS] as number
      this.#paths.delete(path)
      if (failed !== 'all' && !failed.has(index)) this.#told.written(path)
      else this.#told.refused(path, lane.metas[index] as Meta, lane.data.subarray(at, at + bytes))
      at += bytes
    }
    this.#free.push(Object.assign(lane, { used: 0, paths: [], metas: [] }))
    this.#woken()
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #woken(): void {
    for (const wake of this.#waiting.splice(0)) wake()
  }

  #break(): void {
    if (this.#broken) return
    this.#broken = true
    this.flush()
    this.#settleAll()
    for (const { paths, settle } of this.#syncs.splice(0)) settle(paths)
    this.#woken()
  }

  #settleAll(): void {
    for (let lane = this.#underWay.shift(); lane; lane = this.#underWay.shift()) this.#settle(lane, 'all')
  }
}
