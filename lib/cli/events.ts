import { z } from 'zod'
import { serverSchema } from '../config/schema.ts'
import { BENCH_EVENTS } from './bench-events.ts'
import { OVERVIEW_EVENTS } from './overview-events.ts'
import { SCHEDULE_EVENTS } from './schedule-events.ts'

/*
 * What the command says with `--json`: one object a line, told apart by `event`. The schemas stand for both the lines
 * and what a command gives the Output: a time is a Date there, and text of ISO 8601 in the line.
 */

const time = z.codec(z.iso.datetime(), z.date(), {
  decode: (text) => new Date(text),
  encode: (date) => date.toISOString(),
})
const count = z.int().min(0)
const bytes = z.number().min(0)
const ms = z.number()
/** ms since 1970, with a fraction where there is one. */
const moment = z.number()

const progressFields = {
  bytes,
  totalBytes: bytes.optional(),
  elapsedMs: ms,
  bytesPerSecond: z.number(),
  etaMs: ms.optional(),
}

const destinationProgress = z.strictObject({
  destination: z.string(),
  state: z.enum(['writing', 'finished', 'failed']),
  sentBytes: bytes,
  pendingBytes: bytes,
})

const snapshotFields = {
  server: z.string(),
  id: z.string(),
  kind: z.enum(['tar', 'raw']),
  encrypted: z.boolean(),
  key: z.string(),
  created: time,
  storedBytes: bytes,
  version: z.string().optional(),
  complete: z.boolean(),
  pinned: z.boolean(),
}
/** What the store's listing adds. */
const listedFields = { ...snapshotFields, modified: time.optional() }

const failure = z.strictObject({ code: z.string().optional(), message: z.string() })

const made = z.strictObject({
  event: z.literal('snapshot'),
  ...snapshotFields,
  sha256: z.string(),
  bytes,
  files: count,
  consistency: z.string(),
  omissions: z.strictObject({
    special: count,
    names: count,
    unreadable: count,
    removed: count,
    changed: count,
    excluded: count,
  }),
  quiesce: z
    .strictObject({
      level: z.enum(['stopped', 'snapshot', 'quiesced', 'live']),
      kept: z.boolean(),
      resumed: z.boolean(),
    })
    .nullable(),
  destinations: z.array(
    z.strictObject({
      destination: z.string(),
      ok: z.boolean(),
      error: failure.optional(),
      version: z.string().optional(),
    }),
  ),
  takenUp: z.strictObject({ since: moment, heldBytes: bytes, sentBytes: bytes }).nullable(),
  incomplete: z.boolean(),
  elapsedMs: ms,
})

const verifyStatus = z.enum(['ok', 'unverified', 'damaged'])
const verifyMode = z.enum(['quick', 'sample', 'full', 'restore-test'])

const listed = z.strictObject({
  event: z.literal('snapshot'),
  ...listedFields,
  known: z.strictObject({ consistency: z.string(), files: count, bytes, excluded: count }).nullable(),
  problem: z.string().optional(),
  verified: z
    .strictObject({
      size: bytes,
      version: z.string().nullable(),
      status: verifyStatus,
      mode: verifyMode,
      at: moment,
      reason: z.string().optional(),
    })
    .nullable(),
})

const indexHead = z.strictObject({
  v: z.literal(1),
  kind: z.enum(['tar', 'raw']),
  server: z.string(),
  id: z.string(),
  created: moment,
  tool: z.string(),
  bytes,
  files: count,
  consistency: z.string(),
  mode: z.number().optional(),
  mtime: moment.optional(),
  excluded: count.optional(),
})

const verification = z.strictObject({
  event: z.literal('verification'),
  id: z.string(),
  status: verifyStatus,
  mode: verifyMode,
  reason: z.string().optional(),
  damage: z
    .strictObject({
      layer: z.enum(['header', 'container', 'zstd']),
      frame: count.nullable(),
      offset: bytes,
      bytes,
      files: z.array(z.string()).nullable(),
      moreFiles: count,
    })
    .optional(),
  storedBytes: bytes,
  bytes: bytes.optional(),
  sha256: z.string().optional(),
  frames: z.strictObject({ read: count, of: count, seed: z.string() }).optional(),
  compared: count.optional(),
  differences: z.array(z.string()).optional(),
  elapsedMs: ms,
})

/** One of several that could not be verified. */
const notVerified = z.strictObject({
  event: z.literal('verification'),
  id: z.string(),
  status: z.literal('failed'),
  reason: z.string(),
  code: z.string().optional(),
})

const pruneOutcome = z.enum(['kept', 'planned', 'removed', 'in-use', 'deferred', 'failed'])

/** What the config says of a server, with what it has of `defaults`; no command line, and no place of a secret. */
const configured = serverSchema.pick({ schedule: true, retention: true, maxAge: true, verify: true }).extend({
  name: z.string(),
  source: z.string().optional(),
  program: z.string().optional(),
  destinations: z.array(z.string()),
  prune: z.boolean(),
})

/** By the name in `event`. A name whose lines come in several shapes has a union. */
export const EVENTS = {
  progress: z.strictObject({
    event: z.literal('progress'),
    ...progressFields,
    stage: z.string().optional(),
    storedBytes: bytes.optional(),
    destinations: z.array(destinationProgress).optional(),
    snapshots: z.strictObject({ done: count, of: count }).optional(),
  }),
  warning: z.strictObject({ event: z.literal('warning'), kind: z.string(), path: z.string(), message: z.string() }),
  notice: z.strictObject({ event: z.literal('notice'), message: z.string() }),
  error: z.strictObject({
    event: z.literal('error'),
    exitCode: z.int().min(1),
    code: z.string().optional(),
    message: z.string(),
  }),
  snapshot: z.union([made, listed]),
  backup: z.strictObject({
    event: z.literal('backup'),
    servers: z.array(z.strictObject({ server: z.string(), exitCode: count })),
  }),
  'left-out': z.strictObject({
    event: z.literal('left-out'),
    path: z.string(),
    folder: z.boolean(),
    pattern: z.string(),
    origin: z.string(),
  }),
  plan: z.strictObject({
    event: z.literal('plan'),
    kind: z.enum(['tar', 'raw']),
    files: count,
    entries: count,
    bytes,
    excluded: count,
    game: z.string().nullable(),
  }),
  upload: z.strictObject({
    event: z.literal('upload'),
    server: z.string(),
    id: z.string(),
    location: z.string().nullable(),
    source: z.string().nullable(),
    since: moment,
    storedBytes: bytes,
    state: z.enum(['resumable', 'running', 'unknown', 'damaged']),
    problem: z.string().optional(),
    journal: z.string(),
  }),
  check: z.strictObject({
    event: z.literal('check'),
    ok: z.boolean(),
    location: z.string(),
    conditionalWrites: z.boolean(),
    steps: z.array(
      z.strictObject({
        step: z.string(),
        ok: z.boolean(),
        ms,
        code: z.string().optional(),
        message: z.string().optional(),
      }),
    ),
    found: z.record(z.string(), z.union([z.boolean(), z.string()])).optional(),
  }),
  status: z.strictObject({
    event: z.literal('status'),
    server: z.string(),
    destination: z.string(),
    newest: z.strictObject({ ...listedFields }).nullable(),
    ageMs: ms.nullable(),
    snapshots: count,
    unfinished: count,
    future: count,
    tooOld: z.boolean(),
  }),
  entry: z.strictObject({
    event: z.literal('entry'),
    path: z.string(),
    type: z.enum(['file', 'dir', 'symlink', 'link']),
    size: bytes,
    mode: z.number(),
    mtime: moment,
    uid: z.number(),
    gid: z.number(),
    link: z.string().optional(),
    at: bytes,
    data: bytes,
    changed: z.string().optional(),
    superseded: z.boolean().optional(),
  }),
  inspection: z.strictObject({
    event: z.literal('inspection'),
    snapshot: z.strictObject({ ...listedFields }),
    head: indexHead.nullable(),
    frames: count.nullable(),
    encryption: z.strictObject({ frameBytes: bytes, iterations: count.nullable() }).nullable(),
  }),
  restored: z.strictObject({
    event: z.literal('restored'),
    id: z.string(),
    target: z.string(),
    bytes,
    files: count,
    resumed: z.boolean(),
    verified: z.boolean(),
    elapsedMs: ms,
    warnings: count,
  }),
  verification: z.union([verification, notVerified]),
  summary: z.strictObject({
    event: z.literal('summary'),
    snapshots: count,
    ok: count,
    unverified: count,
    damaged: count,
    failed: count,
  }),
  decision: z.strictObject({
    event: z.literal('decision'),
    destination: z.string().optional(),
    ...listedFields,
    action: z.enum(['keep', 'remove']),
    outcome: pruneOutcome,
    reasons: z.array(z.string()),
  }),
  problem: z.strictObject({
    event: z.literal('problem'),
    destination: z.string().optional(),
    key: z.string(),
    code: z.string(),
    message: z.string(),
    deferred: z.boolean(),
  }),
  prune: z.strictObject({
    event: z.literal('prune'),
    server: z.string(),
    destination: z.string().optional(),
    dryRun: z.boolean(),
    counts: z.record(pruneOutcome, count),
    removedBytes: bytes,
    unfinished: count,
    orphans: z.array(z.string()),
    strayPins: z.array(z.string()),
    foreign: z.array(z.string()),
    cancelledUploads: count,
    notes: z.array(z.string()),
  }),
  pin: z.strictObject({
    event: z.literal('pin'),
    destination: z.string().optional(),
    id: z.string(),
    note: z.string().nullable(),
    since: time.nullable(),
    snapshot: z.boolean(),
  }),
  unpin: z.strictObject({ event: z.literal('unpin'), id: z.string(), destination: z.string().optional() }),
  adopted: z.strictObject({
    event: z.literal('adopted'),
    id: z.string(),
    key: z.string(),
    storedBytes: bytes,
    bytes,
    sha256: z.string(),
    elapsedMs: ms,
  }),
  resumed: z.strictObject({
    event: z.literal('resumed'),
    servers: z.array(
      z.strictObject({
        where: z.string(),
        server: z.string().nullable(),
        since: moment.nullable(),
        already: z.boolean(),
      }),
    ),
  }),
  config: z.strictObject({
    event: z.literal('config'),
    file: z.string(),
    secrets: z.enum(['read', 'missing', 'not looked at']),
    warnings: z.array(z.string()),
    servers: z.array(configured),
    destinations: z.array(z.strictObject({ name: z.string(), provider: z.string() })),
  }),
  login: z.strictObject({
    event: z.literal('login'),
    provider: z.string(),
    file: z.string().optional(),
    clientId: z.string().optional(),
    clientSecret: z.string().optional(),
    refreshToken: z.string().optional(),
    scopes: z.array(z.string()).optional(),
  }),
  ...BENCH_EVENTS,
  ...OVERVIEW_EVENTS,
  ...SCHEDULE_EVENTS,
}

export type EventName = keyof typeof EVENTS

/** One line of the command's `--json` output, as `JSON.parse` gives it. */
export type CliEvent = z.input<(typeof EVENTS)[EventName]>

type Without<T, Key extends PropertyKey> = T extends unknown ? Omit<T, Key> : never

/** What a command gives for an event: its fields, with times as Dates. */
export type EventFields<Name extends EventName> = Without<z.output<(typeof EVENTS)[Name]>, 'event'>

/**
 * Reads one line of `--json` output, strictly: a field that is not known is refused.
 * @throws Error when it is no event, or not as it should be.
 */
export function parseEvent(line: string): CliEvent {
  const event = JSON.parse(line) as { event?: unknown }
  const schema = EVENTS[event.event as EventName]
  if (schema === undefined) throw new Error(`The event ${JSON.stringify(event.event)} is not known.`)
  const found = schema.safeParse(event)
  if (!found.success) throw new Error(`${line}\n${z.prettifyError(found.error)}`)
  return event as CliEvent
}
