import { z } from 'zod'

/* What `bench` says with `--json`; see events.ts. */

const count = z.int().min(0)
const bytes = z.number().min(0)
const ms = z.number()
const speed = z.number().min(0)

const rateFields = {
  bytes,
  elapsedMs: ms,
  /** Of what went in. */
  bytesPerSecond: speed,
  /** Of the source, of which that many were made. */
  sourceBytesPerSecond: speed,
  cores: z.number().min(0),
}
const rate = z.strictObject(rateFields)
const bound = z.strictObject({
  by: z.enum(['reading', 'cpu', 'writing', 'upload', 'bandwidth']),
  destination: z.string().optional(),
  bytesPerSecond: speed,
})
const prediction = z.strictObject({
  bytesPerSecond: speed,
  limit: bound,
  next: bound.nullable(),
  ratio: z.number(),
  cores: z.number(),
})

export const BENCH_EVENTS = {
  bench: z.strictObject({
    event: z.literal('bench'),
    source: z.strictObject({
      kind: z.enum(['folder', 'file', 'synthetic']),
      path: z.string().nullable(),
      bytes: bytes.nullable(),
      files: count.nullable(),
      sampleBytes: bytes,
    }),
    cores: count,
    threads: count,
    level: count,
    cpuShare: z.number(),
    read: z.strictObject({ ...rateFields, diskShare: z.number().nullable() }).nullable(),
    compression: z.array(z.strictObject({ level: count, ...rateFields, ratio: z.number() })),
    encryption: rate,
    hashing: rate,
    chain: z.strictObject({ ...rateFields, ratio: z.number() }),
    stores: z.array(
      z.strictObject({
        destination: z.string(),
        kind: z.enum(['folder', 'remote']),
        partBytes: bytes.nullable(),
        uploads: z.array(z.strictObject({ partBytes: bytes.nullable(), inFlight: count.nullable(), ...rateFields })),
        notCompared: z.string().nullable(),
        download: rate.nullable(),
        bandwidth: speed.nullable(),
        sentBytes: bytes,
      }),
    ),
    now: prediction,
    recommended: prediction,
    advice: z.array(
      z.strictObject({
        setting: z.enum(['level', 'partBytes', 'threads']),
        destination: z.string().optional(),
        from: z.number(),
        to: z.number(),
        change: z.boolean(),
        reason: z.string(),
      }),
    ),
    estimate: z.strictObject({ bytes, nowMs: ms, recommendedMs: ms }).nullable(),
    elapsedMs: ms,
  }),
}
