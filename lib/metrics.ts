import { readFile } from 'node:fs/promises'
import { BackupError } from './errors.ts'
import { replaceFile } from './replace-file.ts'
import { inTurn } from './turns.ts'

// The text format of Prometheus, for node_exporter's textfile collector: HELP and TYPE before a metric's samples, label
// values with \\, \" and \n escaped, no timestamps, a line feed at the end.

/** What is known of one server at one destination; what is left out keeps its value from the runs before. */
export interface MetricValues {
  /** Unix time in seconds, as for the other two. */
  lastSuccess?: number | undefined
  lastVerified?: number | undefined
  lastFailure?: number | undefined
  /** Of the last snapshot: the archive's bytes, and the object's. */
  bytes?: number | undefined
  storedBytes?: number | undefined
  /** What the last snapshot took. */
  seconds?: number | undefined
  bytesPerSecond?: number | undefined
  snapshots?: number | undefined
  unfinished?: number | undefined
}

export interface MetricUpdate extends MetricValues {
  server: string
  /** The store's location: a URL without credentials. */
  destination: string
}

const METRICS: { [K in keyof Required<MetricValues>]: readonly [name: string, help: string] } = {
  lastSuccess: ['millrace_last_success_timestamp_seconds', 'When the newest complete snapshot was made.'],
  lastVerified: ['millrace_last_verified_timestamp_seconds', 'When a snapshot was last verified and found good.'],
  lastFailure: ['millrace_last_failure_timestamp_seconds', 'When a run last failed.'],
  bytes: ['millrace_last_snapshot_bytes', 'Bytes of the last snapshot before compression.'],
  storedBytes: ['millrace_last_snapshot_stored_bytes', 'Bytes of the last snapshot as stored.'],
  seconds: ['millrace_last_snapshot_duration_seconds', 'How long the last snapshot took.'],
  bytesPerSecond: [
    'millrace_last_snapshot_bytes_per_second',
    'Bytes before compression a second in the last snapshot.',
  ],
  snapshots: ['millrace_snapshots', 'Complete snapshots in the store.'],
  unfinished: ['millrace_unfinished_snapshots', 'Objects in the store without a companion.'],
}

const TIMES = ['lastSuccess', 'lastVerified', 'lastFailure'] as const
/** As for `millrace status`: clocks differ by less. */
const FUTURE_SECONDS = 600

type Samples = Map<string, Map<string, string>>

const SAMPLE = /^(millrace_[a-z_]+)(\{server="(?:[^"\\\n]|\\.)*",destination="(?:[^"\\\n]|\\.)*"\}) (-?[0-9.e+-]+)$/

/**
 * Brings a file of metrics up to date: it is read, if it is there, and replaced by rename, so that the collector never
 * sees half of it. Runs that end at once take their turns.
 * @param file its name ends in .prom for the collector; it is made readable for all.
 * @throws BackupError TARGET when it cannot be written, or is there and no file of metrics.
 */
export async function writeMetrics(file: string, updates: readonly MetricUpdate[]): Promise<void> {
  const text = async () => {
    const before = await readIfThere(file)
    // What was named by mistake would be gone.
    if (before.trim() !== '' && !before.includes('millrace_')) {
      throw new BackupError(
        'TARGET',
        `The file ${file} holds something other than metrics, and was left as it is. Name another one.`,
      )
    }
    const samples = parse(before, Date.now())
    for (const update of updates) apply(samples, update)
    return format(samples)
  }
  // The collector runs as another user.
  await inTurn(file, () => replaceFile(file, text, { mode: 0o644, what: 'The metrics file' }))
}

/**
 * Times that were written while a clock was ahead, as now: what they tell of has happened. Left as they are, no alert would
 * tell before that time that nothing has come since.
 * @param now ms since 1970.
 */
export function withoutFuture(update: MetricUpdate, now: number): MetricUpdate {
  const found = { ...update }
  for (const name of TIMES) if (found[name] !== undefined) found[name] = notLater(found[name], now)
  return found
}

function notLater(seconds: number, now: number): number {
  return seconds > now / 1000 + FUTURE_SECONDS ? Math.floor(now / 1000) : seconds
}

/** A metric that is not one of a destination's, with its samples. */
export interface SampleSet {
  name: string
  help: string
  /** 'gauge' when left out. */
  type?: 'gauge' | 'counter'
  samples: readonly { labels: Readonly<Record<string, string>>; value: number }[]
}

/** The text of metrics for an answer over HTTP: those of destinations, then others. A metric without a sample is left out. */
export function formatSamples(updates: readonly MetricUpdate[], others: readonly SampleSet[] = []): string {
  const samples: Samples = new Map()
  for (const update of updates) apply(samples, update)
  return format(samples) + others.map(formatSet).join('')
}

function formatSet({ name, help, type = 'gauge', samples }: SampleSet): string {
  if (samples.length === 0) return ''
  const lines = samples.map(({ labels, value }) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`)
    return `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`
  })
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`
}

function apply(samples: Samples, update: MetricUpdate): void {
  const labels = `{server="${escapeLabel(update.server)}",destination="${escapeLabel(update.destination)}"}`
  for (const [field, [name]] of Object.entries(METRICS)) {
    const value = update[field as keyof MetricValues]
    if (value === undefined || !Number.isFinite(value)) continue
    const series = samples.get(name) ?? new Map<string, string>()
    series.set(labels, String(value))
    samples.set(name, series)
  }
}

function format(samples: Samples): string {
  const lines = Object.values(METRICS).flatMap(([name, help]) => {
    const series = samples.get(name)
    if (!series) return []
    const values = [...series].map(([labels, value]) => `${name}${labels} ${value}`)
    return [`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, ...values.sort()]
  })
  return lines.map((line) => `${line}\n`).join('')
}

/** What this program did not write is left out. */
function parse(text: string, now: number): Samples {
  const times: readonly string[] = TIMES.map((field) => METRICS[field][0])
  const samples: Samples = new Map()
  for (const line of text.split('\n')) {
    const [, name, labels, value] = SAMPLE.exec(line) ?? []
    if (name === undefined || Number.isNaN(Number(value))) continue
    const series = samples.get(name) ?? new Map<string, string>()
    const isTime = times.includes(name)
    samples.set(name, series.set(labels as string, isTime ? String(notLater(Number(value), now)) : (value as string)))
  }
  return samples
}

async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}
