import fs from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { isOfAnother, missing, withMode } from './attributes.ts'
import { CREATE_FLAGS, errnoOf, READ_FLAGS } from './io.ts'
import type { TargetRights } from './rights.ts'
import { type Attribute, isNotHad } from './shortfalls.ts'
import { FIELDS, type SmallWriteAnswer, type SmallWriteRequest, type WriteMemory } from './small-writes.ts'

/*
 * The thread of SmallWrites. What does not go as it should it leaves to the thread that asked, which knows what to do:
 * a file is written whole, with its attributes, or nothing of it is there.
 */

const lanes = (workerData as WriteMemory[]).map(({ numbers, data }) => ({
  numbers: new Float64Array(numbers),
  data: Buffer.from(data),
}))

parentPort?.on('message', (request: SmallWriteRequest) => {
  const begun = performance.now()
  const missed: SmallWriteAnswer['missed'] = []
  const done = request.kind === 'sync' ? syncAll(request.paths) : { failed: writeAll(request, missed) }
  const answer: SmallWriteAnswer = { kind: request.kind, ...done, missed, ms: performance.now() - begun }
  parentPort?.postMessage(answer)
})

function writeAll(
  { lane, paths, rights }: SmallWriteRequest & { kind: 'write' },
  missed: SmallWriteAnswer['missed'],
): number[] {
  const { numbers, data } = lanes[lane] as (typeof lanes)[0]
  const failed: number[] = []
  let at = 0
  for (const [index, path] of paths.entries()) {
    const file = numbers.subarray(index * FIELDS, (index + 1) * FIELDS)
    const bytes = file[0] as number
    const lost = writeOne(path, data.subarray(at, at + bytes), file, rights)
    if (!lost) failed.push(index)
    else if (lost.length > 0) missed.push([index, lost])
    at += bytes
  }
  return failed
}

/**
 * Owner before mode (chown clears setuid), time last.
 * @returns what the file system did not keep of it; undefined when it could not be written.
 */
function writeOne(path: string, data: Buffer, numbers: Float64Array, rights: TargetRights): Attribute[] | undefined {
  const [, mode, uid, gid, seconds] = numbers as unknown as [number, number, number, number, number]
  const time = seconds < 0 ? new Date(seconds) : seconds
  let fd: number | undefined
  let isMade = false
  try {
    fd = fs.openSync(path, CREATE_FLAGS, 0o600)
    isMade = true
    for (let at = 0; at < data.length; ) at += fs.writeSync(fd, data, at, data.length - at)
    const made = fd
    if (rights.owners) ifHad(() => fs.fchownSync(made, uid, gid))
    ifHad(() => fs.fchmodSync(made, mode))
    ifHad(() => fs.futimesSync(made, time, time))
    const mtimeMs = seconds < 0 ? seconds : seconds * 1000
    const found = fs.fstatSync(fd)
    let lost = missing(found, { mode, uid, gid, mtimeMs }, rights)
    if (isOfAnother(found, lost)) {
      fs.fchmodSync(fd, found.mode & 0o777)
      lost = withMode(lost)
    }
    fd = undefined
    // Some file systems report a full disk only now.
    fs.closeSync(made)
    return lost
  } catch {
    if (fd !== undefined) quietly(() => fs.closeSync(fd as number))
    if (isMade) quietly(() => fs.unlinkSync(path))
    return undefined
  }
}

function ifHad(call: () => void): void {
  try {
    call()
  } catch (error) {
    if (!isNotHad(error)) throw error
  }
}

function syncAll(paths: readonly string[]): Pick<SmallWriteAnswer, 'failed' | 'lost'> {
  const failed: number[] = []
  for (const [index, path] of paths.entries()) {
    let fd: number | undefined
    try {
      fd = fs.openSync(path, READ_FLAGS)
      fs.fsyncSync(fd)
    } catch (error) {
      if (fd !== undefined) return { failed, lost: { index, code: errnoOf(error), message: (error as Error).message } }
      failed.push(index)
    } finally {
      if (fd !== undefined) quietly(() => fs.closeSync(fd as number))
    }
  }
  return { failed }
}

function quietly(work: () => void): void {
  try {
    work()
  } catch {}
}
