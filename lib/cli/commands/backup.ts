import { basename, resolve } from 'node:path'
import { openBackups } from '../../backups.ts'
import type { CreateOptions } from '../../create.ts'
import { BackupError } from '../../errors.ts'
import type { MetricValues } from '../../metrics.ts'
import { checkServer } from '../../names.ts'
import type { BackupSource, Omissions } from '../../source.ts'
import { parseDuration } from '../duration.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate, formatRatio } from '../format.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { nowSeconds, reportMetrics, storesOf } from '../stores.ts'

interface BackupOptions extends SecretOptions {
  to: string[]
  server?: string
  fromCommand?: boolean
  level?: number
  allowEmpty?: boolean
  /** false after `--no-lease`. */
  lease?: boolean
  wait?: string
  steal?: boolean
  stallTimeout?: string
  hookBefore?: string
  hookAfter?: string
  hookFailure?: string
  hookTimeout?: string
  metricsFile?: string
}

export async function backupCommand(
  words: readonly string[],
  options: BackupOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const source = sourceOf(words, options.fromCommand === true)
  const server = options.server ?? defaultServer(source)
  checkServer(server)
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'write') : {}
  const around = aroundOf(options)
  const backups = await openBackups({ ...storesOf(options.to), server, encryption, ...keys })
  const { storages } = backups
  const report = (values: (destination: string) => MetricValues) =>
    reportMetrics(options.metricsFile, server, storages, output, values)
  try {
    const { level, allowEmpty } = options
    const made = await backups.create(source, {
      level,
      allowEmpty,
      ...around,
      signal,
      onProgress: output.progress,
      onWarning: output.warning,
    })
    const { id, files, bytes, storedBytes, elapsedMs, incomplete } = made
    const text = [
      `Backed up ${made.kind === 'tar' ? formatCount(files, 'file') : 'the stream'} of ${server} as ${id}`,
      `  ${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)}) in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}`,
      ...made.destinations.map(({ destination, ok }) => `  ${ok ? '' : 'FAILED '}${destination} ${made.key}`),
      ...omissionLines(made.omissions),
    ].join('\n')
    output.result('snapshot', made, text)
    const seconds = elapsedMs / 1000
    await report((destination) =>
      made.destinations.some((one) => one.ok && one.destination === destination)
        ? { bytes, storedBytes, seconds, bytesPerSecond: bytes / seconds }
        : { lastFailure: nowSeconds() },
    )
    return incomplete ? EXIT.INCOMPLETE : EXIT.GOOD
  } catch (error) {
    await report(() => ({ lastFailure: nowSeconds() }))
    throw error
  } finally {
    await backups.close()
  }
}

/** What `create` is told of everything around the backup. */
function aroundOf(options: BackupOptions): Pick<CreateOptions, 'lease' | 'stallMs' | 'hooks'> {
  const ms = (text: string | undefined) => (text === undefined ? undefined : parseDuration(text))
  const { lease, steal, hookBefore: before, hookAfter: after, hookFailure: failure } = options
  return {
    lease: lease === false ? false : { waitMs: ms(options.wait), steal },
    stallMs: ms(options.stallTimeout),
    hooks: { before, after, failure, timeoutMs: ms(options.hookTimeout) },
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

function omissionLines({ special, names, unreadable, changed }: Omissions): string[] {
  const lines: string[] = []
  if (special > 0)
    lines.push(`  left out: ${formatCount(special, 'socket, fifo or device', 'sockets, fifos or devices')}`)
  if (names > 0) lines.push(`  left out: ${formatCount(names, 'name')} not in UTF-8`)
  if (unreadable > 0) lines.push(`  left out: ${formatCount(unreadable, 'entry', 'entries')} that could not be read`)
  if (changed > 0) lines.push(`  changed while they were read: ${formatCount(changed, 'file')}`)
  return lines
}
