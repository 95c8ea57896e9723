import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage, WriteOptions } from '../../adapters/storage.ts'
import type { Random } from './random.ts'
import {
  couldNotSettle,
  isProperError,
  type LoggedRequest,
  type TrialContext,
  type TrialResult,
} from './storage-trials.ts'

/** How an upload is cut short, if it is. */
type Fate = 'run' | 'destroy' | 'destroy-with-error' | 'signal' | 'source-dies'
type Shape = 'plain' | 'size' | 'expectedSize' | 'ifAbsent' | 'wrong-size'

export interface UploadPlan {
  /** What it is, for a message. */
  name: string
  key: string
  data: Buffer
  writeBytes: number
  shape: Shape
  /** What lies under the key before. */
  old: Buffer | undefined
  fate: Fate
  /** When the fate strikes: after so many bytes were read from the source … */
  atBytes: number
  /** … and so long after that. */
  afterMs: number
}

/** Long enough for a commit to be under way, or over. */
const MOMENTS_MS = [0, 0, 1, 3, 10, 30, 100]
/** A server that has a whole request answers it in this time. */
const SERVER_MS = 10_000
const INJECTED = new Error('this trial ends here')

export function planUpload(
  random: Random,
  given: { key: string; bytes: Buffer; partBytes: number; multipartShare: number; ifAbsent: boolean },
): UploadPlan {
  const { key, bytes, partBytes } = given
  const size = random.chance(given.multipartShare)
    ? random.pick([partBytes + 1, partBytes + 1 + random.int(partBytes), 2 * partBytes, 2 * partBytes + 1])
    : random.pick([0, 1, 2 + random.int(1000), random.int(64 * 1024), random.int(64 * 1024), partBytes - 1, partBytes])
  const start = random.int(bytes.length - size)
  const shapes: Partial<Record<Shape, number>> = { plain: 5, size: 2, expectedSize: 1, 'wrong-size': 0.5 }
  if (given.ifAbsent) shapes.ifAbsent = 2
  const shape = random.weighted(shapes)
  const fate: Fate = random.weighted({ run: 7, destroy: 1, 'destroy-with-error': 0.5, signal: 1, 'source-dies': 0.7 })
  const old = random.chance(0.3) ? bytes.subarray(0, 1 + random.int(2000)) : undefined
  const atBytes = random.chance(0.5) ? size : random.int(size + 1)
  const afterMs = random.pick(MOMENTS_MS)
  const writeBytes = random.pick([size || 1, 64 * 1024, 100_003])
  const moment = fate === 'run' ? '' : ` after ${atBytes} bytes and ${afterMs} ms`
  const name = `${key} (${size} bytes, ${shape}${old ? ', over another' : ''}, ${fate}${moment})`
  return { name, key, data: bytes.subarray(start, start + size), writeBytes, shape, old, fate, atBytes, afterMs }
}

/** Runs one upload through the proxy and holds what it left at the server to the guarantees. */
export async function tryUpload(context: TrialContext, plan: UploadPlan): Promise<TrialResult> {
  const { key, data, old, fate, shape } = plan
  if (old) await pipeline(Readable.from([old]), context.direct.createWriteStream(key))
  const logOf = context.follow(key)
  const stopper = new AbortController()
  const options = { ...optionsOf(plan), ...(fate === 'signal' ? { signal: stopper.signal } : {}) }
  const stream = context.storage.createWriteStream(key, options)
  const closed = new Promise<void>((resolve) => stream.once('close', resolve))
  const thrown = await pipeline(source(plan, stream, stopper), stream).then(
    () => undefined,
    (error: Error) => error,
  )
  await closed
  const committed = stream.writableFinished
  const error = stream.errored ?? thrown

  const log = await settledLog(logOf)
  const found = await hashAt(context.direct, key)
  if (committed) {
    assert.ok(shape !== 'wrong-size', 'it was committed with another size than the one that was promised')
    assert.ok(!(shape === 'ifAbsent' && old), 'it was committed over another object, with ifAbsent')
    assert.equal(found, sha256(data), 'it was committed, and the server holds other bytes')
    return { outcome: 'committed' }
  }

  // Of a stream that is destroyed without an error, after its source has ended, pipeline says nothing.
  if (error) assertProper(error, plan)
  else assert.equal(fate, 'destroy', 'it neither committed nor failed')
  if (error instanceof StorageError) assertFits(error, plan)
  // More than one at most: each begin that the server took may be pending when no cancelling got through.
  const mayPend = couldNotSettle(log, context) ? 1 : 0
  const said = error instanceof StorageError ? `failed ${error.code}` : 'aborted'
  if (found === (old && sha256(old))) return { outcome: said, mayPend }
  const didCommit = log.some(({ role, reached }) => role === 'commit' && reached)
  if (found === undefined) {
    assert.ok(didCommit, `${said}: the old object is gone, and no commit reached the server`)
    return { outcome: 'replaced', mayPend }
  }
  assert.equal(found, sha256(data), `${said}: the server holds neither the old bytes nor the new`)
  assert.ok(didCommit && mayPend === 1, `${said} (${error?.message}): its object is left behind`)
  return { outcome: 'unknown', mayPend }
}

function optionsOf({ shape, data }: UploadPlan): WriteOptions {
  switch (shape) {
    case 'size':
      return { size: data.length }
    case 'wrong-size':
      return { size: data.length + 1 }
    case 'expectedSize':
      return { expectedSize: data.length * 2 + 1000 }
    case 'ifAbsent':
      return { ifAbsent: true }
    default:
      return {}
  }
}

/** The plan's bytes; on the way it lets the plan's fate strike. */
function source(plan: UploadPlan, stream: Writable, stopper: AbortController): Readable {
  const { data, writeBytes, fate, atBytes, afterMs } = plan
  const strike = () => {
    if (fate === 'destroy') stream.destroy()
    else if (fate === 'destroy-with-error') stream.destroy(INJECTED)
    else stopper.abort()
  }
  async function* slices() {
    let struck = fate === 'run'
    for (let at = 0; at < data.length || !struck; at += writeBytes) {
      if (!struck && at + writeBytes >= atBytes) {
        struck = true
        if (fate === 'source-dies') throw INJECTED
        // Not awaited: the stream goes on meanwhile, to its commit and past it.
        delay(afterMs).then(strike)
      }
      if (at < data.length) yield data.subarray(at, at + writeBytes)
    }
  }
  return Readable.from(slices(), { objectMode: false })
}

function assertProper(error: Error, { fate }: UploadPlan): void {
  if (isProperError(error)) return
  const isOurs = error === INJECTED && (fate === 'source-dies' || fate === 'destroy-with-error')
  // What pipeline says of a stream that was destroyed without an error.
  const isClosed = fate === 'destroy' && (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE'
  assert.ok(isOurs || isClosed, `it failed with neither a StorageError nor an AbortError: ${error.stack}`)
}

/** What the plan itself is to be refused for is no other plan's error. */
function assertFits({ code, message, cause }: StorageError, { shape, old }: UploadPlan): void {
  const isPlanned =
    (code === 'INVALID' && shape === 'wrong-size') || (code === 'CONFLICT' && shape === 'ifAbsent' && old)
  const mayPass = code === 'UNAVAILABLE' || code === 'RATE_LIMITED' || code === 'CORRUPT'
  assert.ok(isPlanned || mayPass, `it failed with ${code}, which nothing there calls for: ${message} ${cause}`)
}

/** The log once the server is done with all that reached it. */
async function settledLog(logOf: () => LoggedRequest[]): Promise<LoggedRequest[]> {
  let log = logOf()
  const isAtWork = ({ reached, serverStatus }: LoggedRequest) => reached && serverStatus === undefined
  for (const start = performance.now(); log.some(isAtWork) && performance.now() - start < SERVER_MS; log = logOf()) {
    await delay(20)
  }
  return log
}

async function hashAt(storage: Storage, key: string): Promise<string | undefined> {
  const hash = createHash('sha256')
  try {
    for await (const chunk of storage.createReadStream(key)) hash.update(chunk as Buffer)
  } catch (error) {
    if (error instanceof StorageError && error.code === 'NOT_FOUND') return undefined
    throw error
  }
  return hash.digest('hex')
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}
