import { availableParallelism } from 'node:os'
import { defaultThreads } from '../../transforms/zstd-compress.ts'
import type { SelectionOptions } from '../exclude.ts'
import type { LevelFact, Measured, ReadFact, SourceFacts, StoreFacts } from './facts.ts'
import { Sampler, syntheticSample } from './sample.ts'
import { type BenchSource, openBenchSource } from './source.ts'
import { measureChain, measureEncryption, measureHashing, measureLevel, measureRead } from './stages.ts'
import { type BenchStore, measureStore } from './store.ts'

const MIB = 1024 * 1024
/** Levels that are measured, beside the one that is in use. */
export const LEVELS = [1, 3, 6, 9, 12]
/** Of less, nothing can be said. */
const SAMPLE_LEAST_BYTES = MIB

/** What is at work, and how far it is. */
export interface MeasureProgress {
  stage: string
  bytes: number
}

/** How a machine is measured. */
export interface MeasureOptions {
  /** The level that backups are made with. */
  level: number
  /** Bytes that are read at a time, and sent to each store at most. */
  bytes: number
  /** What one measurement takes, about. */
  seconds: number
  onProgress?: ((progress: MeasureProgress) => void) | undefined
  signal?: AbortSignal | undefined
}

/** Opens what is to be read, or undefined for synthetic data. @throws BackupError SOURCE, USAGE; AbortError. */
export async function openMeasured(
  path: string | undefined,
  selection: SelectionOptions,
  { bytes, signal }: Pick<MeasureOptions, 'bytes' | 'signal'>,
): Promise<BenchSource | undefined> {
  if (path === undefined) return undefined
  const source = await openBenchSource(path, selection, { wantedBytes: bytes, signal })
  return source.bytes < SAMPLE_LEAST_BYTES ? undefined : source
}

/**
 * Measures one thing after the other, each for a bounded time and by bounded bytes: reading, compressing at several
 * levels, encrypting, hashing, all of it together, and each store. Nothing is written but scratch objects, which are
 * removed again.
 * @throws BackupError SOURCE, StorageError, AbortError.
 */
export async function measure(
  source: BenchSource | undefined,
  stores: readonly BenchStore[],
  options: MeasureOptions,
): Promise<Measured> {
  const { level, bytes, seconds, signal, onProgress } = options
  const threads = defaultThreads()
  const at = (stage: string) => ({
    seconds,
    signal,
    onBytes: (count: number) => onProgress?.({ stage, bytes: count }),
  })
  const { read, sample, sampled } = await readSample(source, { ...at('read'), bytes })
  const compression: LevelFact[] = []
  for (const one of [...new Set([...LEVELS, level])].sort((a, b) => a - b)) {
    compression.push(await measureLevel(sample, one, { ...at(`level ${one}`), threads }))
  }
  const encryption = await measureEncryption(sample, at('encrypt'))
  const hashing = await measureHashing(sample, at('hash'))
  const chain = await measureChain(sampled, sample, { ...at('all of it'), level, threads, bytes })
  const measuredStores: StoreFacts[] = []
  for (const store of stores) {
    let stage = 'upload'
    const facts = await measureStore(store, {
      ...at(stage),
      onBytes: (count) => onProgress?.({ stage, bytes: count }),
      onStage: (now) => {
        stage = now
      },
      bytes,
    })
    measuredStores.push(facts)
  }
  const sampleBytes = sample.reduce((sum, { length }) => sum + length, 0)
  return {
    source: factsOf(sampled, sampleBytes),
    cores: availableParallelism(),
    threads,
    level,
    read,
    compression,
    encryption,
    hashing,
    chain,
    stores: measuredStores,
  }
}

/** @returns `sampled` undefined where the source gave too little, and synthetic data stands in. */
async function readSample(
  source: BenchSource | undefined,
  options: Parameters<typeof measureRead>[2],
): Promise<{ read: ReadFact | null; sample: readonly Buffer[]; sampled: BenchSource | undefined }> {
  if (source) {
    const sampler = new Sampler()
    const read = await measureRead(source, sampler, options)
    if (sampler.bytes >= SAMPLE_LEAST_BYTES) return { read, sample: sampler.chunks, sampled: source }
  }
  return { read: null, sample: syntheticSample(), sampled: undefined }
}

function factsOf(source: BenchSource | undefined, sampleBytes: number): SourceFacts {
  if (!source) return { kind: 'synthetic', path: null, bytes: null, files: null, sampleBytes }
  const { kind, path, bytes, files } = source
  return { kind, path, bytes, files, sampleBytes }
}
