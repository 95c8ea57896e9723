import fs, { type BigIntStats } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { READ_FLAGS } from './io.ts'
import { SMALL_BYTES, TICK_MS } from './read.ts'
import { type BatchAnswer, type BatchRequest, FIELDS, type LaneMemory, PLAIN } from './small-files.ts'

/*
 * The thread of SmallFiles. It reads what is plain: a file that opens, has held still for a tick, is small, and is the
 * same after it was read as before. Everything else it leaves to the thread that asked, which knows what to do.
 */

const lanes = (workerData as LaneMemory[]).map(({ stats, data }) => ({
  stats: new BigInt64Array(stats),
  data: Buffer.from(data),
}))

parentPort?.on('message', ({ lane, paths }: BatchRequest) => {
  const { stats, data } = lanes[lane] as (typeof lanes)[0]
  const begun = performance.now()
  let used = 0
  let plain = 0
  for (const [index, path] of paths.entries()) {
    const read = readPlain(path, data, used)
    const at = index * FIELDS
    stats[at] = read ? PLAIN : 0n
    if (!read) continue
    plain++
    const { mode, uid, gid, size, mtimeNs, nlink, dev, ino } = read
    stats.set([mode, uid, gid, size, mtimeNs, nlink, dev, ino, BigInt(used)], at + 1)
    used += Number(size)
  }
  const answer: BatchAnswer = { lane, plain, ms: performance.now() - begun }
  parentPort?.postMessage(answer)
})

/** @returns the stat of a file that was read whole to `at`; undefined when there is anything to it. */
function readPlain(path: string, out: Buffer, at: number): BigIntStats | undefined {
  let fd: number | undefined
  try {
    fd = fs.openSync(path, READ_FLAGS)
    const before = fs.fstatSync(fd, { bigint: true })
    const size = Number(before.size)
    if (!before.isFile() || size > SMALL_BYTES || size > out.length - at) return undefined
    // What is handed over has 64 bits, which end in the year 2262.
    if (BigInt.asIntN(64, before.mtimeNs) !== before.mtimeNs) return undefined
    if (Math.abs(Date.now() - Number(before.ctimeNs / 1_000_000n)) < TICK_MS) return undefined
    if (size === 0) return before
    if (fs.readSync(fd, out, at, size, 0) < size) return undefined
    const after = fs.fstatSync(fd, { bigint: true })
    const isSame = after.size === before.size && after.mtimeNs === before.mtimeNs && after.ctimeNs === before.ctimeNs
    return isSame ? before : undefined
  } catch {
    return undefined
  } finally {
    if (fd !== undefined) closeQuietly(fd)
  }
}

function closeQuietly(fd: number): void {
  try {
    fs.closeSync(fd)
  } catch {}
}
