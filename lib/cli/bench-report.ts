import {
  type Measured,
  type Rate,
  type ReadFact,
  type StoreFacts,
  speedOf,
  together,
  type UploadFact,
} from '../measure/facts.ts'
import { type Bound, cpuShare, ratioOf } from '../measure/predict.ts'
import type { Advice, Recommendation } from '../measure/recommend.ts'
import type { EventFields } from './events.ts'
import { formatBytes, formatCount, formatDuration, formatRate, formatTable, printable } from './format.ts'
import { style } from './style.ts'

/** Below this share a folder was mostly read from memory, and the disk's own speed is not known. */
const FROM_DISK = 0.5
/** Below this share of the cores that it wanted, compression was disturbed. */
const UNDISTURBED = 0.75

/** What `bench` has found, for programs. */
export function benchFields(
  measured: Measured,
  { now, then, advice, estimate }: Recommendation,
  elapsedMs: number,
): EventFields<'bench'> {
  const ratio = ratioNow(measured)
  const { source, cores, threads, level, read, compression, encryption, hashing, chain, stores } = measured
  return {
    source,
    cores,
    threads,
    level,
    cpuShare: cpuShare(measured),
    read: read && { ...rateFields(read, 1), diskShare: read.diskShare },
    compression: compression.map((one) => ({ level: one.level, ...rateFields(one, 1), ratio: ratioOf(one) })),
    encryption: rateFields(encryption, ratio),
    hashing: rateFields(hashing, ratio),
    chain: { ...rateFields(chain, 1), ratio: ratioOf(chain) },
    stores: stores.map(({ uploads, download, ...store }) => ({
      ...store,
      uploads: uploads.map(({ partBytes, inFlight, ...one }) => ({ partBytes, inFlight, ...rateFields(one, ratio) })),
      download: download && rateFields(download, ratio),
    })),
    now,
    recommended: then,
    advice,
    estimate: estimate && {
      bytes: estimate.bytes,
      nowMs: estimate.nowSeconds * 1000,
      recommendedMs: estimate.thenSeconds * 1000,
    },
    elapsedMs,
  }
}

/** @param ratio the source's bytes for each of the stage's own. */
function rateFields(rate: Rate, ratio: number) {
  const bytesPerSecond = speedOf(rate)
  return {
    bytes: rate.bytes,
    elapsedMs: rate.seconds * 1000,
    bytesPerSecond,
    sourceBytesPerSecond: bytesPerSecond * ratio,
    cores: coresOf(rate),
  }
}

function coresOf({ seconds, cpuSeconds }: Rate): number {
  return seconds > 0 ? cpuSeconds / seconds : 0
}

function ratioNow({ compression, level }: Measured): number {
  const found = compression.find((one) => one.level === level)
  return found ? ratioOf(found) : 1
}

/** The same for people. */
export function benchText(measured: Measured, found: Recommendation): string {
  const { source, cores, threads, stores } = measured
  const of =
    source.path === null
      ? 'Synthetic data'
      : `${printable(source.path)}: ${formatBytes(source.bytes as number)}, ${formatCount(source.files as number, 'file')}`
  const machine = `${formatCount(cores, 'core')}, ${formatCount(threads, 'thread')} for compression`
  return [
    `${of}; measured on a sample of ${formatBytes(source.sampleBytes)}, with ${machine}.`,
    '',
    formatTable(['STAGE', 'YOUR DATA', 'ITSELF', 'CORES', ''], rowsOf(measured), [1, 2, 3]),
    '',
    ...limitLines(measured, found),
    ...(stores.length === 0 ? ['No destination was measured: name one with --to.'] : []),
    '',
    ...found.advice.map((one) => adviceLine(one, stores.length > 1)),
  ].join('\n')
}

function rowsOf(measured: Measured): string[][] {
  const { read, compression, level, encryption, hashing, chain, stores } = measured
  const ratio = ratioNow(measured)
  const row = (name: string, rate: Rate, ownRatio: number, note = '') => [
    name,
    formatRate(speedOf(rate) * ownRatio),
    formatRate(speedOf(rate)),
    coresOf(rate).toFixed(1),
    note,
  ]
  return [
    ...(read ? [row('reading', read, 1, readNote(read))] : []),
    ...compression.map((one) => {
      const isNow = one.level === level ? ', as now' : ''
      return row(`zstd, level ${one.level}`, one, 1, `ratio ${ratioOf(one).toFixed(2)}${isNow}`)
    }),
    row('AES-256-GCM', encryption, ratio),
    row('SHA-256', hashing, ratio),
    row(`all of it, level ${level}`, chain, 1, 'thrown away at the end'),
    ...stores.flatMap((store) => {
      const named = stores.length > 1 ? printable(store.destination) : ''
      return storeRows(store, named, (name, rate, note) => row(name, rate, ratio, note))
    }),
  ]
}

function isFromMemory(read: ReadFact | null): boolean {
  return read !== null && read.diskShare !== null && read.diskShare < FROM_DISK
}

function readNote(read: ReadFact): string {
  if (read.diskShare === null) return ''
  return isFromMemory(read) ? 'mostly from memory: the disk may be slower' : 'from the disk'
}

function storeRows(
  store: StoreFacts,
  named: string,
  row: (name: string, rate: Rate, note: string) => string[],
): string[][] {
  const { kind, uploads, download, partBytes } = store
  const verb = kind === 'folder' ? 'write' : 'upload'
  const sizes = [...new Set(uploads.map((one) => one.partBytes))]
  const rows = sizes.map((size) => {
    const passes = uploads.filter((one) => one.partBytes === size)
    const { inFlight } = passes[0] as UploadFact
    const parts = size === null ? '' : `, ${inFlight} x ${partSize(size)}`
    const isNow = size !== null && size === partBytes
    return row(`${verb}${parts}`, together(passes), notes(named, isNow ? 'as now' : ''))
  })
  if (!download) return rows
  const last =
    kind === 'folder'
      ? row('read back', download, notes(named, 'from memory, if it fits there'))
      : row('download', download, named)
  return [...rows, last]
}

function notes(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(', ')
}

function limitLines(measured: Measured, { now, estimate, advice }: Recommendation): string[] {
  const { read, stores, threads } = measured
  const { limit, next } = now
  const head = `What limits: ${boundWords(limit, measured)}, at ${formatRate(limit.bytesPerSecond)} of your data.`
  const after =
    next === null
      ? ''
      : ` Next is ${boundWords(next, measured)}, at ${(next.bytesPerSecond / limit.bytesPerSecond).toFixed(1)} times that.`
  const lines = [style('strong', head) + after]
  if (stores.some(({ kind }) => kind === 'remote') && limit.by === 'upload') {
    lines.push('From here a slow line and a slow store look the same; another store on this line tells them apart.')
  }
  if (isFromMemory(read)) {
    lines.push('The source was mostly in memory: a backup that finds it on the disk alone may be limited by that.')
  }
  const share = cpuShare(measured)
  if (share < UNDISTURBED) {
    const had = `${(share * threads).toFixed(1)} of ${formatCount(threads, 'core')}`
    lines.push(
      `Other programs were at work: compression had ${had}. It counts where they always are; else measure again.`,
    )
  }
  if (estimate === null) return lines
  const { bytes, nowSeconds, thenSeconds } = estimate
  const better = advice.some(({ change }) => change)
    ? `, and about ${formatDuration(thenSeconds * 1000)} with what is advised`
    : ''
  const where = stores.length === 0 ? ' to a destination that keeps up' : ''
  lines.push(
    `A backup of these ${formatBytes(bytes)}${where} takes about ${formatDuration(nowSeconds * 1000)}${better}; it stores about ${formatBytes(bytes / now.ratio)}.`,
  )
  return lines
}

/** `8 MiB`, not `8.00 MiB`. */
function partSize(bytes: number): string {
  return formatBytes(bytes).replace(/\.0+ /, ' ')
}

function boundWords({ by, destination }: Bound, { read }: Measured): string {
  const where = destination === undefined ? '' : printable(destination)
  const words: Record<Bound['by'], string> = {
    reading: `reading the source (${isFromMemory(read) ? 'from memory' : 'the disk'})`,
    cpu: 'the CPU',
    writing: `writing to ${where} (the disk)`,
    upload: `the upload to ${where} (the line, or the store)`,
    bandwidth: `the bandwidth that the config allows ${where}`,
  }
  return words[by]
}

function adviceLine({ setting, destination, from, to, change, reason }: Advice, isNamed: boolean): string {
  const show = (value: number) => (setting === 'partBytes' ? partSize(value) : `${value}`)
  const name = isNamed && destination !== undefined ? `${setting} of ${printable(destination)}` : setting
  if (!change) return `Keep ${name} at ${show(from)}: ${printable(reason)}`
  const how = {
    level: `--level ${to}, or level: ${to} of the server in the config`,
    partBytes: `partBytes: ${Math.round(to / 2 ** 20)}MiB of the destination in the config`,
    threads: `UV_THREADPOOL_SIZE=${to} in the environment, or without it`,
  }[setting]
  return `${style('good', `Set ${name} to ${show(to)}`)} (${how}): ${printable(reason)}`
}
