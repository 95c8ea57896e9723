import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { beginThread } from '../../transforms/thread.ts'

/** What a batch's files have to fit into; those that do not are read by who asks. */
const LANE_BYTES = 512 * 1024
/** One batch is archived while another one is read, and the next ones wait for the thread. */
const LANES = 4
const BATCH_FILES = 128
/** BigInts a file: whether it is PLAIN, the eight of its stat, and where its bytes begin. */
export const FIELDS = 10
export const PLAIN = 1n
/** A file that takes so long comes from a disk that seeks, or a network: there the thread pool's several are faster. */
const SLOW_MS = 0.4

/** What a batch is written to, in memory that both threads see. */
export interface LaneMemory {
  stats: SharedArrayBuffer
  data: SharedArrayBuffer
}

export interface BatchRequest {
  lane: number
  paths: string[]
}

export interface BatchAnswer {
  lane: number
  /** How many of its files were plain. */
  plain: number
  /** How long all of it took. */
  ms: number
}

/** What an archive needs of a stat. */
export interface PlainStat {
  mode: bigint
  uid: bigint
  gid: bigint
  size: bigint
  mtimeNs: bigint
  nlink: bigint
  dev: bigint
  ino: bigint
}

/** A file that was read whole and held still. */
export interface PlainFile {
  kind: 'file'
  stat: PlainStat
  /** Its bytes, valid until `release`. */
  data: Buffer
  changed: undefined
}

/** One path that was added. */
export class Reading {
  readonly #files: SmallFiles
  readonly #lane: Lane
  readonly #index: number

  constructor(files: SmallFiles, lane: Lane, index: number) {
    this.#files = files
    this.#lane = lane
    this.#index = index
  }

  /** Whether its batch has been read. */
  get isDone(): boolean {
    return this.#lane.state === 'read'
  }

  /** Kept when its batch has been read. */
  done(): Promise<void> {
    return this.#lane.done
  }

  /** Once it is done: undefined when there is anything to the file; it is to be opened by who asked. */
  file(): PlainFile | undefined {
    return this.#lane.ok ? plainOf(this.#lane, this.#index) : undefined
  }

  /** To be called once, when the file's bytes have been used. */
  release(): void {
    this.#files.released(this.#lane)
  }
}

export interface Lane {
  number: number
  stats: BigInt64Array
  data: Buffer
  paths: string[]
  /** Files that have not been released. */
  left: number
  state: 'free' | 'filling' | 'reading' | 'read'
  done: Promise<void>
  /** Whether the thread has read it. */
  ok: boolean
  settle: () => void
}

/**
 * Reads small files in batches, on a thread of its own with synchronous calls. Five turns through the thread pool for
 * each of a hundred thousand files take four times as long as the kernel needs for them.
 */
export class SmallFiles {
  readonly #root: string
  /** undefined where there is none to be had. */
  readonly #worker: Worker | undefined
  readonly #lanes: Lane[]
  #filling: Lane | undefined
  #broken = false
  #isOfNoUse = false

  /** @param root what the paths are relative to. */
  constructor(root: string) {
    this.#root = root
    const memory: LaneMemory[] = Array.from({ length: LANES }, () => ({
      stats: new SharedArrayBuffer(BATCH_FILES * FIELDS * 8),
      data: new SharedArrayBuffer(LANE_BYTES),
    }))
    this.#lanes = memory.map(({ stats, data }, number) => ({
      number,
      stats: new BigInt64Array(stats),
      data: Buffer.from(data),
      paths: [],
      left: 0,
      state: 'free',
      done: Promise.resolve(),
      ok: false,
      settle: () => {},
    }))
    this.#worker = beginThread(import.meta.url, 'small-files-worker', memory)
    this.#broken = this.#worker === undefined
    this.#worker?.on('message', (answer: BatchAnswer) => this.#answered(answer))
    this.#worker?.on('error', () => this.#break())
    this.#worker?.on('exit', () => this.#break())
  }

  /** Whether one more file can be added. */
  get hasRoom(): boolean {
    return !this.#broken && (this.#filling !== undefined || this.#lanes.some(({ state }) => state === 'free'))
  }

  /** Whether the thread has died, or was not to be had. */
  get isBroken(): boolean {
    return this.#broken
  }

  /** Whether the last batch was not worth it: few of its files were plain, they took long, or the thread has died. */
  get isOfNoUse(): boolean {
    return this.#broken || this.#isOfNoUse
  }

  /** Adds a file, which is read when its batch is full or with `flush`. Only while `hasRoom`. */
  add(path: string): Reading {
    this.#filling ??= this.#begin()
    const lane = this.#filling
    const index = lane.paths.push(join(this.#root, path)) - 1
    lane.left++
    if (lane.paths.length === BATCH_FILES) this.flush()
    return new Reading(this, lane, index)
  }

  /** One of a lane's files is done with. */
  released(lane: Lane): void {
    lane.left--
    this.#free(lane)
  }

  /** Has what was added so far read now. */
  flush(): void {
    const lane = this.#filling
    if (!lane) return
    this.#filling = undefined
    lane.state = 'reading'
    const request: BatchRequest = { lane: lane.number, paths: lane.paths }
    if (this.#broken) this.#settle(lane, false)
    else this.#worker?.postMessage(request)
  }

  /** Ends the thread. What was added and not read is not read any more. */
  async close(): Promise<void> {
    this.#break()
    await this.#worker?.terminate()
  }

  #begin(): Lane {
    const lane = this.#lanes.find(({ state }) => state === 'free')
    if (!lane) throw new Error('No batch is free: ask hasRoom before.')
    const { promise, resolve } = Promise.withResolvers<void>()
    return Object.assign(lane, { paths: [], left: 0, state: 'filling', ok: false, done: promise, settle: resolve })
  }

  #answered({ lane: number, plain, ms }: BatchAnswer): void {
    const lane = this.#lanes[number] as Lane
    const { length } = lane.paths
    this.#isOfNoUse = ms / length > SLOW_MS || plain < length / 2
    this.#settle(lane, true)
  }

  #settle(lane: Lane, ok: boolean): void {
    lane.state = 'read'
    lane.ok = ok
    lane.settle()
    this.#free(lane)
  }

  #free(lane: Lane): void {
    if (lane.state === 'read' && lane.left === 0) lane.state = 'free'
  }

  #break(): void {
    if (this.#broken) return
    this.#broken = true
    for (const lane of this.#lanes) if (lane.state === 'reading') this.#settle(lane, false)
    this.flush()
  }
}

function plainOf({ stats, data }: Lane, index: number): PlainFile | undefined {
  const at = index * FIELDS
  if (stats[at] !== PLAIN) return undefined
  const [mode, uid, gid, size, mtimeNs, nlink, dev, ino, from] = stats.subarray(at + 1, at + FIELDS) as unknown as [
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
  ]
  const begin = Number(from)
  return {
    kind: 'file',
    stat: { mode, uid, gid, size, mtimeNs, nlink, dev, ino },
    data: data.subarray(begin, begin + Number(size)),
    changed: undefined,
  }
}
