import { type Measured, type StoreFacts, speedOf, type UploadFact } from './facts.ts'
import { type LimitBy, type Prediction, predict, ratioOf, type Settings, uploadRate } from './predict.ts'

/** What is advised of one setting. */
export interface Advice {
  setting: 'level' | 'partBytes' | 'threads'
  /** The store, of `partBytes`. */
  destination?: string
  /** As it is now. */
  from: number
  /** What it should be; the same where nothing is gained. */
  to: number
  change: boolean
  /** Why, in a sentence. */
  reason: string
}

/** What the measurements come to. */
export interface Recommendation {
  /** With the settings as they are. */
  now: Prediction
  /** With those that are advised; the same where all stay. */
  then: Prediction
  advice: Advice[]
  /** Of the whole source; null for synthetic data, whose size nobody knows. */
  estimate: { bytes: number; nowSeconds: number; thenSeconds: number } | null
}

/** What a change has to bring: less is not worth a setting, and may be chance. */
export const GAIN = 0.1
/** What is as good as the same. */
const SAME = 0.03
/** Threads that the command compresses with at most. */
const THREADS_MOST = 4
const MIB = 1024 * 1024

const LIMIT_WORDS: Record<LimitBy, string> = {
  reading: 'Reading the source',
  cpu: 'The CPU',
  writing: 'Writing to the folder',
  upload: 'The upload',
  bandwidth: "The config's bandwidth",
}

/**
 * Says what limits a backup, how long it will take, and which settings would make it shorter or smaller: a level, the
 * size of parts at each store, threads. A setting stays as it is unless another one brings at least `GAIN`.
 */
export function recommend(measured: Measured): Recommendation {
  const { level } = measured
  const now = predict(measured, { level })
  const partAdvice = measured.stores.flatMap((store) => adviseParts(measured, store, now))
  const parts = new Map(
    partAdvice.flatMap(({ destination, to, change }) => (change ? [[destination as string, to] as const] : [])),
  )
  const levelAdvice = adviseLevel(measured, parts)
  const then = predict(measured, { level: levelAdvice.to, parts })
  const { bytes } = measured.source
  return {
    now,
    then,
    advice: [levelAdvice, ...partAdvice, adviseThreads(measured, then)],
    estimate:
      bytes === null
        ? null
        : { bytes, nowSeconds: bytes / now.bytesPerSecond, thenSeconds: bytes / then.bytesPerSecond },
  }
}

interface Option {
  level: number
  ratio: number
  prediction: Prediction
  /** What the backup would be faster by, compared with now: 0.1 for 10 %. */
  faster: number
  /** What would be stored less. */
  smaller: number
}

function adviseLevel(measured: Measured, parts: Settings['parts']): Advice {
  const { level: from, source, compression } = measured
  const keep = (reason: string): Advice => ({ setting: 'level', from, to: from, change: false, reason })
  if (source.kind === 'synthetic') {
    return keep('a synthetic sample does not say how your data compresses: name the folder to have a level advised.')
  }
  const now = predict(measured, { level: from, parts })
  const others: Option[] = compression
    .filter(({ level }) => level !== from)
    .map((fact) => {
      const prediction = predict(measured, { level: fact.level, parts })
      const ratio = ratioOf(fact)
      const faster = prediction.bytesPerSecond / now.bytesPerSecond - 1
      return { level: fact.level, ratio, prediction, faster, smaller: 1 - now.ratio / ratio }
    })
  const picked = pickLevel(others)
  if (picked) return { setting: 'level', from, to: picked.level, change: true, reason: whyLevel(from, now, picked) }
  const best = others.toSorted((a, b) => worthOf(b) - worthOf(a))[0]
  return keep(
    best
      ? `no other level brings ${percent(GAIN)}: the next best, ${best.level}, would ${inTime(best.faster)} and ${inRoom(best.smaller)}.`
      : 'no other level was measured.',
  )
}

/** Of those that are worth it: the fastest, of those as fast the smallest, of those as small the lowest. */
function pickLevel(options: readonly Option[]): Option | undefined {
  const worth = options.filter(
    ({ faster, smaller }) => (faster >= GAIN && -smaller <= faster) || (smaller >= GAIN && faster >= -SAME),
  )
  const fastest = Math.max(...worth.map(({ prediction }) => prediction.bytesPerSecond))
  const fast = worth.filter(({ prediction }) => prediction.bytesPerSecond >= fastest * (1 - SAME))
  const largest = Math.max(...fast.map(({ ratio }) => ratio))
  return fast.filter(({ ratio }) => ratio >= largest * (1 - SAME)).toSorted((a, b) => a.level - b.level)[0]
}

function worthOf({ faster, smaller }: Option): number {
  return Math.max(faster, faster >= -SAME ? smaller : -1)
}

function whyLevel(from: number, now: Prediction, { level, faster, smaller, prediction }: Option): string {
  const brings = `level ${level} would ${inTime(faster)} and ${inRoom(smaller)}`
  if (level < from) return `${LIMIT_WORDS[now.limit.by]} limits, and ${brings}.`
  const busy = `with ${prediction.cores.toFixed(1)} cores busy`
  if (faster >= GAIN) return `${LIMIT_WORDS[now.limit.by]} limits, and compression has time: ${brings}, ${busy}.`
  return `Compression has time: ${brings}, ${busy}.`
}

function adviseParts(measured: Measured, store: StoreFacts, now: Prediction): Advice[] {
  const { destination, partBytes: from, notCompared } = store
  if (from === null) return []
  const keep = (reason: string): Advice => ({
    setting: 'partBytes',
    destination,
    from,
    to: from,
    change: false,
    reason,
  })
  const sizes = [...new Set(store.uploads.map(({ partBytes }) => partBytes as number))].filter((one) => one !== from)
  if (sizes.length === 0) return [keep(notCompared ?? 'no other size was measured.')]
  const before = speedOf(uploadRate(store, undefined))
  const speeds = sizes
    .map((size) => ({ size, speed: speedOf(uploadRate(store, new Map([[destination, size]]))) }))
    .toSorted((a, b) => b.speed - a.speed)
  const [best] = speeds as [(typeof speeds)[number]]
  const faster = best.speed / before - 1
  const named = `parts of ${inMib(best.size)}`
  if (faster < GAIN) {
    return [
      keep(`no other size sends ${percent(GAIN)} faster: the next best, ${inMib(best.size)}, is ${byHow(faster)}.`),
    ]
  }
  if (!isSurelyFaster(store.uploads, best.size, from)) {
    return [
      keep(`${named} sent ${percent(faster)} faster on average, which the ups and downs of this line may explain.`),
    ]
  }
  const then = predict(measured, { level: measured.level, parts: new Map([[destination, best.size]]) })
  const gain = then.bytesPerSecond / now.bytesPerSecond - 1
  if (gain < GAIN) {
    return [
      keep(`${named} send ${percent(faster)} faster, and a backup would gain nothing: ${limitOf(then)} holds it back.`),
    ]
  }
  const reason = `${named} send ${percent(faster)} faster, ${best.size > from ? 'fewer' : 'more'} of them at once; a backup would ${inTime(gain)}.`
  return [{ setting: 'partBytes', destination, from, to: best.size, change: true, reason }]
}

/** Whether each upload with the one size was faster than each with the other, and by what a change has to bring. */
function isSurelyFaster(uploads: readonly UploadFact[], size: number, than: number): boolean {
  const speeds = (bytes: number) => uploads.filter((one) => one.partBytes === bytes).map(speedOf)
  return Math.min(...speeds(size)) >= (1 + GAIN) * Math.max(...speeds(than))
}

function adviseThreads({ threads, cores }: Measured, { limit }: Prediction): Advice {
  const to = Math.min(cores, THREADS_MOST)
  const keep = (reason: string): Advice => ({ setting: 'threads', from: threads, to: threads, change: false, reason })
  if (limit.by !== 'cpu') return keep('compression is not what limits.')
  if (threads < to) {
    const reason = `the CPU limits, and only ${threads} of ${cores} cores compress: UV_THREADPOOL_SIZE is set too low.`
    return { setting: 'threads', from: threads, to, change: true, reason }
  }
  if (threads < cores) {
    return keep(`the command compresses on at most ${THREADS_MOST} of the ${cores} cores; a program can give more.`)
  }
  return keep(`all ${cores} cores compress already.`)
}

function limitOf({ limit }: Prediction): string {
  const words = LIMIT_WORDS[limit.by]
  return words.charAt(0).toLowerCase() + words.slice(1)
}

/** A speed of 1.25 times is 20 % less time. */
function inTime(faster: number): string {
  const less = 1 - 1 / (1 + faster)
  if (Math.abs(less) < 0.005) return 'take as long'
  return less > 0 ? `take ${percent(less)} less time` : `take ${percent(-less)} more time`
}

function inRoom(smaller: number): string {
  if (Math.abs(smaller) < 0.005) return 'as much room'
  return smaller > 0 ? `${percent(smaller)} less room` : `${percent(-smaller)} more room`
}

function byHow(faster: number): string {
  if (Math.abs(faster) < 0.005) return 'as fast'
  return faster > 0 ? `${percent(faster)} faster` : `${percent(-faster)} slower`
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}

function inMib(bytes: number): string {
  return `${Number((bytes / MIB).toFixed(1))} MiB`
}
