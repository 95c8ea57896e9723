import { z } from 'zod'
import type { ServerReport } from '../report/model.ts'

/* What `history`, `report`, `doctor` and `recovery-sheet` say with `--json`; see events.ts. */

const count = z.int().min(0)
const bytes = z.number().min(0)
const ms = z.number()

export const OVERVIEW_EVENTS = {
  run: z.strictObject({
    event: z.literal('run'),
    v: z.literal(1),
    at: z.string(),
    command: z.enum(['backup', 'prune', 'verify', 'restore']),
    server: z.string(),
    outcome: z.enum(['ok', 'incomplete', 'failed', 'interrupted']),
    exitCode: count,
    elapsedMs: ms,
    id: z.string().optional(),
    destinations: z.array(z.strictObject({ destination: z.string(), ok: z.boolean() })).optional(),
    bytes: bytes.optional(),
    storedBytes: bytes.optional(),
    files: count.optional(),
    consistency: z.string().optional(),
    removed: count.optional(),
    error: z.strictObject({ code: z.string(), message: z.string() }).optional(),
  }),
  report: z.strictObject({
    event: z.literal('report'),
    v: z.literal(1),
    generated: z.string(),
    // What the page is made of; see ServerReport. It goes with the page.
    servers: z.array(z.custom<ServerReport>((one) => typeof (one as ServerReport)?.server === 'string')),
    unreadable: z.array(z.strictObject({ location: z.string(), reason: z.string() })),
  }),
  finding: z.strictObject({
    event: z.literal('finding'),
    check: z.string(),
    subject: z.string().optional(),
    state: z.enum(['ok', 'warn', 'fail']),
    message: z.string(),
    advice: z.string().optional(),
  }),
  doctor: z.strictObject({
    event: z.literal('doctor'),
    ok: z.boolean(),
    config: z.string().nullable(),
    counts: z.strictObject({ ok: count, warn: count, fail: count }),
  }),
  'recovery-sheet': z.strictObject({
    event: z.literal('recovery-sheet'),
    file: z.string(),
    server: z.string(),
    format: z.enum(['html', 'md', 'txt']),
    withPassword: z.boolean(),
  }),
}
