import { parseStorageUrl, type StorageConfig } from '../../../adapters/open.ts'
import { ZSTD_LEVEL } from '../../../transforms/index.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { destinationConfig, hasDestination, hasServer, serverNames, serverSettings } from '../../config/settings.ts'
import { storageConfigOf } from '../../config/storage.ts'
import { BackupError } from '../../errors.ts'
import type { SelectionOptions } from '../../exclude.ts'
import type { MeasureProgress } from '../../measure/index.ts'
import type { BenchSource } from '../../measure/source.ts'
import type { BenchStore } from '../../measure/store.ts'
import { checkServer } from '../../names.ts'
import { parseSize } from '../../size.ts'
import { type ConfigOptions, chooseServer, configOf, openStore, serverOf, storesToCheck } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes } from '../format.ts'
import type { Output } from '../output.ts'
import type { Invocation } from '../run.ts'

const MIB = 1024 * 1024
const BYTES = 256 * MIB
const BYTES_MOST = 1024 ** 4
const SECONDS = 3
const SECONDS_LEAST = 0.05
const SECONDS_MOST = 600
const PROGRESS_MS = 250
/** An archive's own blocks, and what encryption adds, of a source that does not compress. */
const STORED_SHARE = 1.01

interface BenchOptions extends ConfigOptions {
  to?: string[]
  server?: string
  size?: string
  seconds?: number
  level?: number
}

/** Measures a source, this machine and each destination, and says what it comes to. */
export async function benchCommand(
  word: string | undefined,
  options: BenchOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const begun = performance.now()
  const limits = limitsOf(options)
  const loaded = await configOf(options, output)
  const chosen = chooseBench(word, options, loaded)
  for (const store of chosen.stores) await checkWorks(loaded, store, signal)
  const { measure, openMeasured } = await import('../../measure/index.ts')
  const source = await openMeasured(chosen.path, chosen.selection, { bytes: limits.bytes, signal })
  noteSource(chosen, source, output)
  const stores: BenchStore[] = []
  for (const store of chosen.stores) stores.push(await storeOf(loaded, store, chosen.server, source))
  for (const [at, store] of stores.entries()) {
    warnOfBytes(chosen.stores[at] as string, store.kind, limits.bytes, output)
    await noteDisk(source, store, output)
  }
  const level = options.level ?? chosen.level ?? ZSTD_LEVEL
  const onProgress = progressOf(output)
  const measured = await measure(source, stores, { ...limits, level, signal, onProgress })
  const [{ recommend }, { benchFields, benchText }] = await Promise.all([
    import('../../measure/recommend.ts'),
    import('../bench-report.ts'),
  ])
  const found = recommend(measured)
  output.result('bench', benchFields(measured, found, performance.now() - begun), benchText(measured, found))
  return EXIT.GOOD
}

function limitsOf({ size, seconds = SECONDS, level }: BenchOptions): { bytes: number; seconds: number } {
  const bytes = size === undefined ? BYTES : parseSize(size)
  if (bytes < MIB || bytes > BYTES_MOST) {
    throw new BackupError('USAGE', `--size is ${size}; it has to be from 1MiB to 1024GiB.`)
  }
  if (!(seconds >= SECONDS_LEAST && seconds <= SECONDS_MOST)) {
    throw new BackupError('USAGE', `--seconds has to be a number from ${SECONDS_LEAST} to ${SECONDS_MOST}.`)
  }
  if (level !== undefined && !(level >= 1 && level <= 22)) {
    throw new BackupError('USAGE', '--level has to be a whole number from 1 to 22.')
  }
  return { bytes, seconds }
}

interface ChosenBench {
  /** undefined: synthetic data. */
  path: string | undefined
  selection: SelectionOptions
  /** A program, whose output is the source, and which is not run for this. */
  program: string | undefined
  server: string | undefined
  level: number | undefined
  stores: readonly string[]
}

/** @throws BackupError USAGE. */
function chooseBench(word: string | undefined, options: BenchOptions, loaded: LoadedConfig | undefined): ChosenBench {
  const given = options.to ?? []
  for (const one of given) storesToCheck(loaded, one)
  // A word that is a server and a folder is the server, and with --to the folder; as for backups.
  const isServer = word !== undefined && given.length === 0 && options.server === undefined
  const named = isServer && loaded && hasServer(loaded, word) ? word : undefined
  const path = named === undefined ? word : undefined
  const isOwn = given.length === 0 || (path === undefined && loaded && serverNames(loaded).length === 1)
  const server = named ?? options.server ?? (loaded && isOwn ? serverOf(undefined, loaded) : undefined)
  if (server !== undefined) checkServer(server)
  const plain = { path, selection: {}, program: undefined, server, level: undefined, stores: given }
  if (!loaded || server === undefined) return plain
  if (!hasServer(loaded, server) && path !== undefined && given.length > 0) return plain
  // Of a server that the config does not have, it says which it has.
  const settings = serverSettings(loaded, server)
  const stores = chooseServer(loaded, server, { to: given }, '--to').stores
  const { source, level } = settings
  if (path !== undefined) return { ...plain, level, stores }
  if (typeof source !== 'string') return { ...plain, program: source.command[0], level, stores }
  return { ...plain, path: source, selection: settings, level, stores }
}

/** @throws BackupError DESTINATIONS with what does not work. */
async function checkWorks(loaded: LoadedConfig | undefined, store: string, signal: AbortSignal): Promise<void> {
  const storage = await openStore(loaded, store)
  try {
    const { steps } = await storage.probe({ signal })
    const bad = steps.find(({ ok }) => !ok)
    if (bad === undefined) return
    const reason = bad.error?.message ?? 'No reason was given.'
    throw new BackupError(
      'DESTINATIONS',
      `${storage.location} does not work as a destination, and nothing was measured: ${bad.step} fails. ${reason} \`millrace check\` shows each step.`,
      { cause: bad.error },
    )
  } finally {
    await storage.close()
  }
}

function noteSource({ path, program }: ChosenBench, source: BenchSource | undefined, output: Output): void {
  if (source !== undefined) return
  const why =
    path !== undefined
      ? `${path} holds less than 1 MiB, too little to measure`
      : program !== undefined
        ? `The source is the output of ${program}, which is not run for this`
        : 'No source was named'
  output.notice(`${why}: synthetic data stands in, which says nothing of how yours compresses.`)
}

async function storeOf(
  loaded: LoadedConfig | undefined,
  store: string,
  server: string | undefined,
  source: BenchSource | undefined,
): Promise<BenchStore> {
  const { benchStore } = await import('../../measure/target.ts')
  const isNamed = loaded !== undefined && hasDestination(loaded, store)
  const config: StorageConfig = isNamed ? await storageConfigOf(loaded, store) : parseStorageUrl(store)
  const { bandwidth, readBandwidth } = isNamed ? destinationConfig(loaded, store) : {}
  const expectedSize = source && Math.ceil(source.bytes * STORED_SHARE)
  return benchStore(config, { bandwidth, readBandwidth, server, expectedSize })
}

function warnOfBytes(store: string, kind: BenchStore['kind'], bytes: number, output: Output): void {
  const message = `Up to ${formatBytes(bytes)} will be ${kind === 'folder' ? 'written' : 'sent'} to ${store}, some of it read back, and all of it removed; --size bounds it.`
  if (kind === 'folder') output.notice(message)
  else output.warning({ kind: 'bench', path: store, message })
}

async function noteDisk(source: BenchSource | undefined, { root }: BenchStore, output: Output): Promise<void> {
  if (source === undefined || root === undefined) return
  const { onOneDevice } = await import('../../measure/source.ts')
  if (!(await onOneDevice(source.path, root))) return
  output.notice(
    `${source.path} and ${root} are on one file system: a backup reads and writes its disk at once, and each is slower then; and what takes that disk takes both.`,
  )
}

function progressOf(output: Output): (progress: MeasureProgress) => void {
  let last = { stage: '', bytes: 0, begun: 0, shown: 0 }
  return ({ stage, bytes }) => {
    const now = performance.now()
    if (stage !== last.stage || bytes < last.bytes) last = { stage, bytes, begun: now, shown: now }
    last.bytes = bytes
    if (now - last.shown < PROGRESS_MS) return
    last.shown = now
    const elapsedMs = now - last.begun
    output.progress({ stage, bytes, elapsedMs, bytesPerSecond: (bytes * 1000) / elapsedMs })
  }
}
