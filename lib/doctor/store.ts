import { randomBytes } from 'node:crypto'
import { statfs } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Storage } from '../../adapters/storage.ts'
import { surveyStore } from '../catalog.ts'
import { parseDuration } from '../duration.ts'
import { Claims, leaseClock } from '../lease-claims.ts'
import { writeSmall } from '../small-object.ts'
import { readStatus } from '../status.ts'
import { type Finding, fail, ok, warn } from './finding.ts'
import { showBytes } from './runtime.ts'

/** Stores count in whole seconds, some in two. */
const CLOCK_SLACK_MS = 2500
/** From here on snapshots are taken for dated in the future, and S3 is about to refuse requests. */
const CLOCK_WARN_MS = 10 * 60_000
/** From here on a prune is refused. */
const CLOCK_FAIL_MS = 86_400_000

/**
 * Looks whether a store works, and whether its clock and this machine's agree.
 * @returns whether it can be listed.
 */
export async function* checkStore(
  name: string,
  storage: Storage,
  signal: AbortSignal,
): AsyncGenerator<Finding, boolean> {
  const { ok: isGood, steps } = await storage.probe({ signal })
  const failed = steps.filter((one) => !one.ok)
  for (const { step, error } of failed) {
    const message = error?.message ?? 'failed'
    yield fail('destination', name, message.startsWith(step) ? message : `${step}: ${message}`, adviceOn(step, error))
  }
  if (!isGood) return !failed.some(({ step }) => step === 'sign-in' || step === 'list')
  const times = steps.map(({ step, ms }) => `${step} ${ms} ms`).join(', ')
  yield ok('destination', name, `all that a backup needs works at ${storage.location} (${times})`)
  yield await checkClock(name, storage, signal)
  return true
}

function adviceOn(step: string, error: Error | undefined): string {
  const { code } = (error ?? {}) as { code?: unknown }
  if (step === 'sign-in' || code === 'AUTH_EXPIRED') {
    return 'Check its address and its credentials; `millrace check` shows more.'
  }
  if (code === 'ACCESS_DENIED') return `Give the credentials the right to ${step}; see docs/providers.`
  return 'Check its settings; `millrace check` shows more.'
}

/** Compares this machine's clock with the store's, by a small object that is removed again. */
export async function checkClock(name: string, storage: Storage, signal: AbortSignal): Promise<Finding> {
  const key = `.millrace-canary-${randomBytes(9).toString('hex')}`
  let apart: number
  try {
    const before = Date.now()
    await writeSmall(storage, key, 'millrace canary: safe to delete\n', { signal })
    const after = Date.now()
    const { modified } = await storage.stat(key, { signal })
    const time = modified.getTime()
    const late = time - (after + CLOCK_SLACK_MS)
    const early = before - CLOCK_SLACK_MS - time
    apart = late > 0 ? late : early > 0 ? -early : 0
  } catch (error) {
    if (signal.aborted) throw error
    return warn('clock', name, `cannot be compared: ${(error as Error).message}`)
  } finally {
    // Without the caller's signal: it goes though they have stopped.
    await storage.delete(key).catch(() => {})
  }
  const minutes = Math.round(Math.abs(apart) / 60_000)
  const said = `the store is ${minutes} minutes ${apart > 0 ? 'ahead of' : 'behind'} this machine`
  const advice = 'Set the clock of this machine right (`timedatectl set-ntp true`).'
  if (Math.abs(apart) > CLOCK_FAIL_MS) return fail('clock', name, `${said}: a prune is refused`, advice)
  if (Math.abs(apart) > CLOCK_WARN_MS) return warn('clock', name, said, advice)
  return ok('clock', name, minutes > 0 ? said : "agrees with the store's")
}

/** Looks at what a store holds of a server: its newest snapshot, what is unfinished, who has its lease. */
export async function* checkBackups(
  name: string,
  storage: Storage,
  server: { name: string; maxAge?: string | undefined },
  signal: AbortSignal,
): AsyncGenerator<Finding> {
  const subject = `${server.name} at ${name}`
  const maxAgeMs = server.maxAge === undefined ? undefined : parseDuration(server.maxAge)
  const { newest, ageMs, tooOld, unfinished, snapshots, future } = await readStatus(storage, server.name, {
    maxAgeMs,
    signal,
  })
  if (newest === null || ageMs === null) {
    yield warn('backups', subject, 'there is no complete one', `\`millrace backup ${server.name}\` makes one.`)
  } else {
    const said = `${snapshots} complete, the newest ${inWords(ageMs)} old${server.maxAge === undefined ? '' : ` (at most ${server.maxAge})`}`
    const advice = 'Look why none came since: is `millrace schedule` running, and what did its last run say?'
    yield tooOld ? fail('backups', subject, said, advice) : ok('backups', subject, said)
    yield* checkRoom(subject, storage, newest.storedBytes)
  }
  if (future > 0) {
    yield warn(
      'backups',
      subject,
      `${future} dated in the future: a clock is or was wrong`,
      'They count for no age; remove them by hand once the clock is right.',
    )
  }
  if (unfinished > 0) {
    yield warn(
      'unfinished',
      subject,
      `${unfinished === 1 ? 'one snapshot has' : `${unfinished} snapshots have`} no companion: a run broke off, or is at work`,
      '`millrace prune` removes what is worth nothing; `millrace adopt` completes what is whole.',
    )
  }
  yield* checkLease(subject, storage, server.name, signal)
}

/** Looks whether one more snapshot fits into a folder; what is pruned goes only after it. @param bytes the newest one's. */
async function* checkRoom(subject: string, storage: Storage, bytes: number): AsyncGenerator<Finding> {
  if (storage.adapter !== 'filesystem') return
  const { bavail, blocks, bsize } = await statfs(fileURLToPath(storage.location))
  const free = bavail * bsize
  // Some network mounts do not say.
  if (blocks === 0 || free >= bytes) return
  yield fail(
    'room',
    subject,
    `${showBytes(free)} free, and the newest snapshot takes ${showBytes(bytes)}: another one does not fit`,
    'Make room on that disk, or keep fewer: `millrace prune` with less of `retention`.',
  )
}

async function* checkLease(
  subject: string,
  storage: Storage,
  server: string,
  signal: AbortSignal,
): AsyncGenerator<Finding> {
  const claims = await new Claims(storage, server, leaseClock).look(undefined, signal)
  for (const { owner, since, recent } of claims) {
    if (recent) yield ok('lease', subject, `held by ${owner} since ${since}: a run is at work`)
    else {
      yield warn(
        'lease',
        subject,
        `left by ${owner} on ${since}, which gives no sign of life`,
        'The next backup takes it over once it has watched it for long enough; `--steal` takes it at once.',
      )
    }
  }
  const { leases } = await surveyStore(storage, server, signal)
  const old = leases.filter(({ modified }) => Date.now() - modified.getTime() > CLOCK_FAIL_MS).length
  if (old > 0 && claims.length === 0) {
    yield warn('lease', subject, `${old} marks of runs that died over a day ago`, '`millrace prune` clears them away.')
  }
}

/** `93_000` ms as `1 minutes`, in the largest unit that it has two of. */
function inWords(ms: number): string {
  const units: [number, string][] = [
    [86_400_000, 'days'],
    [3_600_000, 'hours'],
    [60_000, 'minutes'],
  ]
  for (const [size, noun] of units) if (ms >= 2 * size) return `${Math.floor(ms / size)} ${noun}`
  return `${Math.floor(ms / 1000)} seconds`
}
