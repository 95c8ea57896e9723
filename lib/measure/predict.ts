import { type LevelFact, type Measured, type Rate, type StoreFacts, speedOf, together } from './facts.ts'

/** What can be the slowest of a backup. `writing` is to a folder, `upload` to anything else. */
export type LimitBy = 'reading' | 'cpu' | 'writing' | 'upload' | 'bandwidth'

/** How fast a backup could be if this were all that held it back. */
export interface Bound {
  by: LimitBy
  /** The store, of `writing`, `upload` and `bandwidth`. */
  destination?: string
  /** Of the source's bytes. */
  bytesPerSecond: number
}

/** What a backup with some settings would be like. */
export interface Prediction {
  /** Of the source's bytes. */
  bytesPerSecond: number
  limit: Bound
  /** What would limit it next; null where nothing else was measured. */
  next: Bound | null
  /** The source's bytes for each that is stored. */
  ratio: number
  /** Cores that are busy meanwhile. */
  cores: number
}

/** The settings of a backup that this can tell the difference of. */
export interface Settings {
  level: number
  /** Bytes of a part, by the store's destination; as they are now where there is none. */
  parts?: ReadonlyMap<string, number> | undefined
}

/** A configured bandwidth counts as what holds an upload back when the upload comes that close to it. */
const AT_LIMIT = 0.85
/** What the whole chain may have been slower than its parts promise, before something else must have disturbed it. */
const EFFICIENCY_LEAST = 0.2
const SHARE_LEAST = 0.1

/**
 * Puts the pieces together: a backup goes as fast as the slowest of reading, each store, and the CPU that all stages
 * share. How the whole chain compared with its pieces, when it was measured, goes into it.
 * @throws Error for a level or a size of parts that was not measured.
 */
export function predict(measured: Measured, settings: Settings): Prediction {
  const level = levelFact(measured, settings.level)
  const ratio = ratioOf(level)
  const uploads = measured.stores.map((store) => ({ store, rate: uploadRate(store, settings.parts) }))
  const efficiency = efficiencyOf(measured)
  const cpuPerByte = chainCpu(measured, level) + uploads.reduce((sum, { rate }) => sum + cpuOf(rate) / ratio, 0)
  const bounds: Bound[] = [
    { by: 'cpu', bytesPerSecond: efficiency * cpuBound(measured, level, uploads) },
    ...uploads.map(({ store, rate }) => storeBound(store, rate, ratio)),
  ]
  if (measured.read) bounds.push({ by: 'reading', bytesPerSecond: speedOf(measured.read) })
  bounds.sort((a, b) => a.bytesPerSecond - b.bytesPerSecond)
  const [limit, next = null] = bounds as [Bound, ...Bound[]]
  const { bytesPerSecond } = limit
  return { bytesPerSecond, limit, next, ratio, cores: Math.min(measured.cores, bytesPerSecond * cpuPerByte) }
}

/** The source's bytes for each that is stored. */
export function ratioOf({ bytes, storedBytes }: Pick<LevelFact, 'bytes' | 'storedBytes'>): number {
  return storedBytes > 0 ? bytes / storedBytes : 1
}

/** How fast a store takes bytes, with parts of the size that is set or, without one, as they are now. */
export function uploadRate(store: StoreFacts, parts: ReadonlyMap<string, number> | undefined): Rate {
  const partBytes = parts?.get(store.destination) ?? store.partBytes
  const passes = store.uploads.filter((one) => one.partBytes === partBytes)
  if (passes.length === 0) throw new Error(`No upload to ${store.destination} with parts of ${partBytes} was measured`)
  return together(passes)
}

/** Whether it is the configured bandwidth that an upload's speed comes of. */
export function isHeldBack(bytesPerSecond: number, bandwidth: number | null | undefined): boolean {
  return bandwidth != null && bytesPerSecond >= AT_LIMIT * bandwidth
}

function levelFact({ compression }: Measured, level: number): LevelFact {
  const found = compression.find((one) => one.level === level)
  if (!found) throw new Error(`Level ${level} was not measured`)
  return found
}

function storeBound(store: StoreFacts, rate: Rate, ratio: number): Bound {
  const { destination, kind, bandwidth } = store
  const speed = speedOf(rate)
  const isHeld = isHeldBack(speed, bandwidth)
  const by = isHeld ? 'bandwidth' : kind === 'folder' ? 'writing' : 'upload'
  return { by, destination, bytesPerSecond: speed * ratio }
}

/**
 * Of all cores, of the threads that compress, and of the one thread on which JavaScript runs. It goes by CPU time, which
 * other programs disturb least, and by how much of the machine they have left.
 */
function cpuBound(measured: Measured, level: LevelFact, uploads: readonly { rate: Rate }[]): number {
  const { cores, threads, read, encryption, hashing } = measured
  const stored = [encryption, hashing, ...uploads.map(({ rate }) => rate)]
  const plain = read ? [read, level] : [level]
  const perByte = (of: (rate: Rate) => number) =>
    plain.reduce((sum, rate) => sum + of(rate), 0) + stored.reduce((sum, rate) => sum + of(rate), 0) / ratioOf(level)
  const parallel = Math.min(cores / perByte(cpuOf), threads / cpuOf(level))
  return Math.min(cpuShare(measured) * parallel, 1 / perByte(mainOf))
}

/** The share of its threads' cores that compression got, at the level where that was most; other programs had the rest. */
export function cpuShare({ compression, threads }: Measured): number {
  const most = Math.max(...compression.map(({ cpuSeconds, seconds }) => cpuSeconds / seconds / threads))
  return Math.max(SHARE_LEAST, Math.min(1, most))
}

/** Seconds of CPU for a byte of the source, without those of the stores. */
function chainCpu({ read, encryption, hashing }: Measured, level: LevelFact): number {
  return (read ? cpuOf(read) : 0) + cpuOf(level) + (cpuOf(encryption) + cpuOf(hashing)) / ratioOf(level)
}

function mainOf({ bytes, mainSeconds }: Rate): number {
  return bytes > 0 ? mainSeconds / bytes : 0
}

function cpuOf({ bytes, cpuSeconds }: Rate): number {
  return bytes > 0 ? cpuSeconds / bytes : 0
}

/**
 * What of its pieces' speed the chain has kept, where CPU was what limited it; above 1 where other programs left it more
 * than its pieces had.
 */
function efficiencyOf(measured: Measured): number {
  const { chain, read } = measured
  const promised = cpuBound(measured, levelFact(measured, measured.level), [])
  const isCpu = !read || promised < speedOf(read)
  const most = 1 / cpuShare(measured)
  return isCpu ? Math.max(EFFICIENCY_LEAST, Math.min(most, speedOf(chain) / promised)) : 1
}
