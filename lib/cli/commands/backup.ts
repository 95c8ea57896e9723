import { basename, resolve } from 'node:path'
import { type Backups, openBackups } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import { checkServer } from '../../names.ts'
import type { RetentionPolicy } from '../../retention.ts'
import type { BackupSource, Omissions } from '../../source.ts'
import { defaultStateFolder } from '../../state.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate, formatRatio } from '../format.ts'
import { type KeepOptions, policyOf, pruneExitCode } from '../keep-options.ts'
import type { Invocation } from '../main.ts'
import { holdLimitMs, type QuiesceCliOptions, quiescerOf, resumeLeft } from '../quiesce.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { dryRun } from './dry-run.ts'
import { showPrune } from './prune.ts'

interface BackupOptions extends SecretOptions, KeepOptions, QuiesceCliOptions {
  to: string
  server?: string
  fromCommand?: boolean
  level?: number
  allowEmpty?: boolean
  prune?: boolean
  include?: string[]
  exclude?: string[]
  /** false after `--no-default-excludes`. */
  defaultExcludes?: boolean
  dryRun?: boolean
}

export async function backupCommand(
  words: readonly string[],
  options: BackupOptions,
  invocation: Invocation,
): Promise<number> {
  const { output, signal } = invocation
  const source = sourceOf(words, options.fromCommand === true)
  const server = options.server ?? defaultServer(source)
  checkServer(server)
  const policy = prunePolicy(options)
  const { include, exclude, defaultExcludes } = options
  const selection = { include, exclude, defaultExcludes }
  if (options.dryRun) return dryRun(source, selection, invocation)
  const stateFolder = defaultStateFolder()
  const quiesceLimitMs = holdLimitMs(options)
  const quiesce = await quiescerOf(options, server, stateFolder)
  await resumeLeft(options, server, stateFolder, output)
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'write') : {}
  const backups = await openBackups({ storage: options.to, server, encryption, ...keys, stateFolder })
  try {
    const { level, allowEmpty } = options
    const made = await backups.create(source, {
      level,
      allowEmpty,
      ...selection,
      quiesce,
      quiesceLimitMs,
      signal,
      onProgress: output.progress,
      onWarning: output.warning,
    })
    const { id, files, bytes, storedBytes, elapsedMs, incomplete } = made
    const text = [
      `Backed up ${made.kind === 'tar' ? formatCount(files, 'file') : 'the stream'} of ${server} as ${id}`,
      `  ${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)}) in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}`,
      `  ${backups.storage.location} ${made.key}`,
      `  consistency: ${made.consistency}`,
      ...omissionLines(made.omissions),
    ].join('\n')
    output.result('snapshot', made, text)
    const code = policy ? await pruneAfter(backups, policy, made.omissions, { output, signal }) : EXIT.GOOD
    return incomplete ? EXIT.INCOMPLETE : code
  } finally {
    await backups.close()
  }
}

/** Looked at before anything is backed up. @throws BackupError USAGE. */
function prunePolicy(options: BackupOptions): RetentionPolicy | undefined {
  if (options.prune) return policyOf(options)
  if (Object.keys(options).some((name) => name.startsWith('keep')) || options.minimum !== undefined) {
    throw new BackupError('USAGE', 'What to keep was given without --prune. Add it, or leave the --keep options out.')
  }
  return undefined
}

/** @returns the exit code that the prune is worth; the backup itself is good. */
async function pruneAfter(
  backups: Backups,
  policy: RetentionPolicy,
  { names, unreadable }: Omissions,
  { output, signal }: Invocation,
): Promise<number> {
  if (names + unreadable > 0) {
    output.notice('Nothing was pruned: what is missing from this snapshot may be in the older ones.')
    return EXIT.INCOMPLETE
  }
  try {
    const report = await backups.prune(policy, { signal })
    showPrune(report, output, false)
    const code = pruneExitCode(report)
    return code === EXIT.FAILED ? EXIT.INCOMPLETE : code
  } catch (error) {
    if (signal.aborted) throw error
    output.error(
      new Error(`The backup is good; the prune after it failed: ${(error as Error).message}`),
      EXIT.INCOMPLETE,
    )
    return EXIT.INCOMPLETE
  }
}

function sourceOf(words: readonly string[], program: boolean): BackupSource {
  const [first, ...rest] = words
  if (first === undefined) {
    throw new BackupError(
      'USAGE',
      'Name a folder or file to back up, or use --from-command and name a program after --.',
    )
  }
  if (program) return { command: [first, ...rest] }
  if (rest.length > 0) throw new BackupError('USAGE', `Name one folder or file; ${words.length} were given.`)
  return first
}

function defaultServer(source: BackupSource): string {
  if (typeof source !== 'string') throw new BackupError('USAGE', 'Name the server with --server.')
  const name = basename(resolve(source))
  try {
    return checkServer(name)
  } catch (cause) {
    throw new BackupError(
      'USAGE',
      `The folder's name ${JSON.stringify(name)} cannot be a server's name. Give one with --server.`,
      { cause },
    )
  }
}

function omissionLines({ special, names, unreadable, changed, excluded }: Omissions): string[] {
  const lines: string[] = []
  if (excluded > 0) lines.push(`  left out by patterns: ${formatCount(excluded, 'name')} (--dry-run shows them)`)
  if (special > 0)
    lines.push(`  left out: ${formatCount(special, 'socket, fifo or device', 'sockets, fifos or devices')}`)
  if (names > 0) lines.push(`  left out: ${formatCount(names, 'name')} not in UTF-8`)
  if (unreadable > 0) lines.push(`  left out: ${formatCount(unreadable, 'entry', 'entries')} that could not be read`)
  if (changed > 0) lines.push(`  changed while they were read: ${formatCount(changed, 'file')}`)
  return lines
}
