import type { Command } from 'commander'
import type { Storage } from '../../../adapters/storage.ts'
import type { Backups } from '../../backups.ts'
import type { Snapshot } from '../../catalog.ts'
import type { Damage } from '../../damage.ts'
import { BackupError } from '../../errors.ts'
import type { Fallback } from '../../fallback.ts'
import type { Verification, VerificationOrError, VerifyOptions } from '../../verify.ts'
import { VerifyNotes } from '../../verify-notes.ts'
import { type Chosen, choose, keysFor, openChosen, type PlaceOptions } from '../configured.ts'
import type { EventFields } from '../events.ts'
import { EXIT, exitCodeOf, gravest } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, printable } from '../format.ts'
import { withKeys, withMetrics, withServer, withStores, withTrust } from '../options.ts'
import type { Output } from '../output.ts'
import { type RecordedInvocation, recorded } from '../recording.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'
import { fallbackTo, nowSeconds, reportMetrics } from '../stores.ts'
import { STATUS_MEANING, style } from '../style.ts'

/** Adds `millrace verify`. */
export function addVerify(program: Command, run: Runner): void {
  withMetrics(withTrust(withKeys(withServer(withStores(program.command('verify'), '--from')))))
    .description('Verify a snapshot by reading all of it, or less, or by restoring it.')
    .argument('[id]', "a snapshot's id, or latest (the default)")
    .option('--all', 'every snapshot of the server in one store (with the config, in each): a line each, and a summary')
    .option('--quick', 'only its companion, header and size')
    .option('--sample <share>', 'header, index, last frame, and a share of the frames chosen at random, as 5%')
    .option('--seed <text>', 'choose the same frames as a sample before')
    .option('--restore-test', 'restore into a scratch folder, compare with the index, and remove it')
    .option('--scratch <dir>', "where the scratch folder is made (default: the system's temporary folder)")
    .addHelpText(
      'after',
      `
Examples:
  $ millrace verify latest --from file:///mnt/backups --server survival
  $ millrace verify --all --sample 5% --from 's3://worlds/mc?region=eu-central-1' --server survival
  $ millrace verify --restore-test --scratch /mnt/big --from file:///mnt/backups --server survival`,
    )
    .action((id, options) => run(options, (invocation) => verifyCommand(id, options, invocation)))
}

interface CommandOptions extends SecretOptions, PlaceOptions {
  from?: string[]
  all?: boolean
  quick?: boolean
  metricsFile?: string
  /** A share, as `5%` or `0.05`. */
  sample?: string
  seed?: string
  restoreTest?: boolean
  scratch?: string
  allowPlain?: boolean
  allowRenamed?: boolean
}

const EXIT_OF = { ok: EXIT.GOOD, unverified: EXIT.INCOMPLETE, damaged: EXIT.DAMAGED }

export async function verifyCommand(
  id: string | undefined,
  options: CommandOptions,
  invocation: Invocation,
): Promise<number> {
  const { all } = options
  if (all && id !== undefined) throw new BackupError('USAGE', 'Name one snapshot, or --all: not both.')
  if (all && (options.from ?? []).length > 1) {
    throw new BackupError('USAGE', '--all verifies the snapshots of one store. Run it once for each, with one --from.')
  }
  // Whoever names them does not mean the other ways: a restore test that was none would be relied on.
  if (options.scratch !== undefined && !options.restoreTest) {
    throw new BackupError('USAGE', '--scratch says where --restore-test restores to: add that, or leave it out.')
  }
  if (options.seed !== undefined && options.sample === undefined) {
    throw new BackupError('USAGE', '--seed chooses the frames of a --sample: add that, or leave it out.')
  }
  const chosen = await choose(options, '--from', invocation.output)
  const { server, stateFolder } = chosen
  return recorded({ command: 'verify', server, stateFolder }, invocation, (noted) =>
    verifyChosen(id, chosen, options, noted),
  )
}

async function verifyChosen(
  id: string | undefined,
  chosen: Chosen,
  options: CommandOptions,
  invocation: RecordedInvocation,
): Promise<number> {
  const { all, quick, seed, restoreTest, scratch, allowPlain, allowRenamed } = options
  const { output, signal, note } = invocation
  const verify: VerifyOptions = { quick, seed, restoreTest, scratch, allowPlain, allowRenamed, signal }
  verify.sample = options.sample === undefined ? undefined : shareOf(options.sample)
  verify.onProgress = output.progress
  const keys = quick ? { encryption: false } : await keysFor(chosen, options, 'read')
  const metricsFile = options.metricsFile ?? chosen.metricsFile
  const report = (backups: Backups, good: boolean) =>
    reportMetrics(metricsFile, chosen.server, backups.storages.slice(0, 1), output, () =>
      good && !quick ? { lastVerified: nowSeconds() } : {},
    )
  if (all) {
    const codes: number[] = []
    for (const store of chosen.stores) {
      const backups = await openChosen({ ...chosen, stores: [store] }, { ...keys, onNotice: output.notice })
      try {
        if (chosen.stores.length > 1) output.notice(`In ${backups.storage.location}:`)
        const code = await verifyAll(backups, chosen, verify, invocation)
        await report(backups, code === EXIT.GOOD)
        codes.push(code)
      } finally {
        await backups.close()
      }
    }
    return gravest(codes)
  }
  let fallbacks = 0
  const onFallback = (fallback: Fallback) => {
    fallbacks += 1
    fallbackTo(output)(fallback)
  }
  const backups = await openChosen(chosen, { ...keys, onFallback, onNotice: output.notice })
  try {
    const tell = unnoted(output)
    const onCopy = (storage: Storage, snapshot: Snapshot, one: Verification) =>
      new VerifyNotes(chosen.stateFolder, storage.location).remember(snapshot, one).catch(tell)
    const found = await backups.verify(id ?? 'latest', { ...verify, onCopy })
    noteFound(found, note)
    output.result('verification', found, textOf(found))
    if (found.status === 'damaged' && !output.json) {
      output.complain(`snapshot ${found.id} is damaged; use another one`)
    }
    await report(backups, found.status === 'ok' && fallbacks === 0)
    // One copy is good, and another one is not.
    return found.status === 'ok' && fallbacks > 0 ? EXIT.INCOMPLETE : EXIT_OF[found.status]
  } finally {
    await backups.close()
  }
}

function noteFound(
  { id, status, reason, bytes, storedBytes, elapsedMs }: Verification,
  note: RecordedInvocation['note'],
) {
  note({ id, storedBytes, elapsedMs, ...(bytes !== undefined && { bytes }) })
  if (status !== 'ok') note({ error: { code: status.toUpperCase(), message: reason ?? '' } })
}

async function verifyAll(
  backups: Backups,
  { stateFolder }: Chosen,
  options: VerifyOptions,
  invocation: RecordedInvocation,
): Promise<number> {
  const { output } = invocation
  const counts = { ok: 0, unverified: 0, damaged: 0, failed: 0 }
  let code: number = EXIT.GOOD
  const notes = new VerifyNotes(stateFolder, backups.storage.location)
  const tell = unnoted(output)
  const onCopy = (_: Storage, snapshot: Snapshot, found: Verification) => notes.add(snapshot, found).catch(tell)
  try {
    for await (const found of backups.verifyAll({ ...options, onCopy })) {
      counts[found.status] += 1
      code = gravest([code, found.status === 'failed' ? exitCodeOf(found.error) : EXIT_OF[found.status]])
      output.result('verification', fieldsOf(found), textOf(found))
    }
  } finally {
    await notes.flush().catch(tell)
  }
  const said = Object.entries(counts).filter(([status, count]) => count > 0 || status === 'ok')
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0)
  const text = `${formatCount(all, 'snapshot')}: ${said.map(([status, count]) => `${count} ${status}`).join(', ')}`
  if (counts.ok < all) invocation.note({ error: { code: 'NOT_ALL_GOOD', message: text } })
  output.result('summary', { snapshots: all, ...counts }, text)
  return code
}

function fieldsOf(found: VerificationOrError): EventFields<'verification'> {
  if (found.status !== 'failed') return found
  const { code } = found.error as { code?: unknown }
  return { id: found.id, status: 'failed', reason: found.error.message, ...(typeof code === 'string' ? { code } : {}) }
}

/** What was found is still good when it cannot be noted. @returns says so, once. */
function unnoted(output: Output): (error: Error) => void {
  let told = output.json
  return ({ message }) => {
    if (!told) output.notice(`The result could not be noted for \`millrace list\`: ${message}`)
    told = true
  }
}

function textOf(found: VerificationOrError): string {
  if (found.status === 'failed')
    return `${found.id}: ${style('bad', 'not verified')}. ${printable(found.error.message)}`
  const { id, status, reason, damage, elapsedMs } = found
  const why = reason ? `. ${printable(reason)}` : ''
  return `${id}: ${style(STATUS_MEANING[status], status)}${why} (${howOf(found)}, ${formatDuration(elapsedMs)})${damage ? `\n${placeOf(damage)}` : ''}`
}

function howOf({ mode, status, storedBytes, frames, compared }: Verification): string {
  if (mode === 'quick') return 'its companion, header and size were looked at'
  if (status === 'damaged' && frames === undefined && compared === undefined) return 'reading ended there'
  if (frames) return `${frames.read} of ${formatCount(frames.of, 'frame')} were read, seed ${frames.seed}`
  if (compared !== undefined) return `restored, and ${compared} entries compared with the index`
  return `all ${formatBytes(storedBytes)} were read`
}

function placeOf({ layer, frame, offset, bytes, files, moreFiles }: Damage): string {
  const where = frame === null ? 'the header' : `frame ${frame} of the ${layer}`
  const more = moreFiles > 0 ? ` and ${moreFiles} more` : ''
  const whose =
    files === null
      ? ''
      : files.length === 0
        ? '; no file is there'
        : `; there are ${files.map((one) => printable(JSON.stringify(one))).join(', ')}${more}`
  return `  first damaged: ${where}, ${bytes} bytes from ${offset}${whose}`
}

function shareOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(text)
  const share = match ? Number(match[1]) / (match[2] ? 100 : 1) : Number.NaN
  if (share > 0 && share <= 1) return share
  throw new BackupError('USAGE', `--sample ${JSON.stringify(text)} is no share of the frames. Say 5%, or 0.05.`)
}
