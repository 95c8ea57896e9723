import { randomBytes } from 'node:crypto'
import {
  createEncrypt,
  createHashTee,
  createZstdCompress,
  FRAME_BYTES,
  ZSTD_FRAME_BYTES,
} from '../../transforms/index.ts'
import { freeChunk } from '../pipe.ts'
import type { LevelFact, PackedRate, Rate, ReadFact } from './facts.ts'
import { rounds, type Sampler } from './sample.ts'
import { type BenchSource, openDiskCounter } from './source.ts'
import { after, timed } from './timed.ts'

/** What every measurement of a stage is held to. */
export interface StageOptions {
  seconds: number
  signal?: AbortSignal | undefined
  onBytes?: ((bytes: number) => void) | undefined
}

/** Code that has run for so long is compiled, and the threads it needs are there. */
const WARM_UP_SECONDS = 0.1
const FRAME_LEAST_BYTES = 64 * 1024

/** Reads the source, and keeps a sample of it. */
export async function measureRead(
  source: BenchSource,
  sampler: Sampler,
  { bytes, seconds, signal, onBytes }: StageOptions & { bytes: number },
): Promise<ReadFact> {
  const counter = await openDiskCounter()
  const isOver = after(seconds)
  const { storedBytes: _, ...rate } = await timed(source.read(0, signal), [], {
    isDone: (read) => read >= bytes || isOver(),
    onChunk: (chunk) => sampler.offer(chunk),
    onBytes,
    signal,
  })
  return { ...rate, diskShare: await counter.share(rate.bytes) }
}

/** Compresses a sample at one level, in frames of which none holds a byte of the sample twice. */
export async function measureLevel(
  sample: readonly Buffer[],
  level: number,
  { seconds, threads, signal, onBytes }: StageOptions & { threads: number },
): Promise<LevelFact> {
  const sampleBytes = sample.reduce((sum, { length }) => sum + length, 0)
  const frameBytes = Math.max(FRAME_LEAST_BYTES, Math.min(ZSTD_FRAME_BYTES, sampleBytes))
  const compress = createZstdCompress({ level, frameBytes })
  const source = rounds(sample, threads * frameBytes, after(seconds))
  return { level, ...(await timed(source, [compress], { onBytes, signal })) }
}

/** Encrypts a sample with a key that nobody keeps. */
export async function measureEncryption(sample: readonly Buffer[], options: StageOptions): Promise<Rate> {
  return measureWarm(options, ({ seconds, signal, onBytes }) =>
    timed(rounds(sample, FRAME_BYTES, after(seconds)), [createEncrypt({ key: randomBytes(32) })], { onBytes, signal }),
  )
}

/** Hashes a sample. */
export async function measureHashing(sample: readonly Buffer[], options: StageOptions): Promise<Rate> {
  return measureWarm(options, ({ seconds, signal, onBytes }) =>
    timed(rounds(sample, FRAME_BYTES, after(seconds)), [createHashTee()], {
      // The chunks are the sample's own.
      onChunk: () => {},
      onBytes,
      signal,
    }),
  )
}

async function measureWarm(
  options: StageOptions,
  measure: (options: StageOptions) => Promise<PackedRate>,
): Promise<Rate> {
  await measure({ seconds: Math.min(WARM_UP_SECONDS, options.seconds), signal: options.signal })
  const { storedBytes: _, ...rate } = await measure(options)
  return rate
}

/** Does all that a backup does to its bytes, and throws them away. @param source undefined: the sample. */
export async function measureChain(
  source: BenchSource | undefined,
  sample: readonly Buffer[],
  { level, threads, bytes, seconds, signal, onBytes }: StageOptions & { level: number; threads: number; bytes: number },
): Promise<PackedRate> {
  const compress = createZstdCompress({ level, onConsumed: source ? freeChunk : undefined })
  const encrypt = createEncrypt({ key: randomBytes(32), onConsumed: freeChunk })
  const stages = [compress, encrypt, createHashTee()]
  const isOver = after(seconds)
  if (!source) return timed(rounds(sample, threads * ZSTD_FRAME_BYTES, isOver), stages, { onBytes, signal })
  return timed(source.read(1, signal), stages, { isDone: (read) => read >= bytes || isOver(), onBytes, signal })
}
