import { z } from 'zod'

/*
 * What `schedule` and `install-timer` say with `--json`; see events.ts. All times are text of ISO 8601, as the daemon's
 * log has them for people too.
 */

const time = z.iso.datetime()
const count = z.int().min(0)
const job = z.enum(['backup', 'verify'])
const reason = z.enum(['schedule', 'catch-up', 'retry', 'run-now'])
const of = { time, server: z.string(), job }
const jobs = z.array(
  z.strictObject({ server: z.string(), job, cron: z.string(), timezone: z.string(), next: time.nullable() }),
)

export const SCHEDULE_EVENTS = {
  'daemon-start': z.strictObject({
    event: z.literal('daemon-start'),
    time,
    pid: count,
    config: z.string(),
    port: count.nullable(),
    jobs,
  }),
  'daemon-reload': z.union([
    z.strictObject({ event: z.literal('daemon-reload'), time, ok: z.literal(true), jobs }),
    z.strictObject({ event: z.literal('daemon-reload'), time, ok: z.literal(false), message: z.string() }),
  ]),
  'daemon-stop': z.strictObject({ event: z.literal('daemon-stop'), time }),
  'run-planned': z.strictObject({ event: z.literal('run-planned'), ...of, at: time, due: time, reason }),
  'run-start': z.strictObject({ event: z.literal('run-start'), ...of, due: time, reason }),
  'run-skipped': z.strictObject({
    event: z.literal('run-skipped'),
    ...of,
    due: time,
    why: z.enum(['missed', 'still running']),
  }),
  'run-end': z.strictObject({
    event: z.literal('run-end'),
    ...of,
    outcome: z.enum(['good', 'incomplete', 'failed', 'interrupted']),
    exitCode: count.nullable(),
    signal: z.string().nullable(),
    meaning: z.string(),
    elapsedMs: z.number(),
    warnings: count,
    id: z.string().optional(),
    bytes: z.number().optional(),
    storedBytes: z.number().optional(),
    status: z.string().optional(),
    message: z.string().optional(),
    next: z.strictObject({ at: time, due: time, reason }).nullable(),
  }),
  'clock-step': z.strictObject({ event: z.literal('clock-step'), time, byMs: z.number() }),
  unit: z.strictObject({
    event: z.literal('unit'),
    path: z.string(),
    state: z.enum(['written', 'unchanged', 'removed', 'dry-run']),
    text: z.string().optional(),
  }),
  timers: z.strictObject({
    event: z.literal('timers'),
    dir: z.string(),
    scope: z.enum(['user', 'system']),
    units: z.array(z.string()),
    environment: z.strictObject({ file: z.string(), names: z.array(z.string()) }).nullable(),
    steps: z.array(z.string()),
  }),
}
