import { type Command, Option } from 'commander'
import { openStorage } from '../../../adapters/open.ts'
import type { Storage } from '../../../adapters/storage.ts'
import { BackupError } from '../../errors.ts'
import { listFirst } from '../../fallback.ts'
import { HeadCache } from '../../head-cache.ts'
import { describeSnapshots, type KnownSnapshot } from '../../known.ts'
import { defaultStateFolder } from '../../state.ts'
import { type Remembered, VerifyNotes } from '../../verify-notes.ts'
import { EXIT } from '../exit-codes.ts'
import { formatAge, formatBytes, formatTable, printable } from '../format.ts'
import { withKeys, withStores } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { fallbackTo } from '../stores.ts'

/** Adds `millrace list`. */
export function addList(program: Command, run: Runner): void {
  withKeys(withStores(program.command('list'), '--from'))
    .description('List the snapshots in a store. Nothing is opened without --long, so no password is needed.')
    .option('--server <name>', 'only this server')
    .option('--long', 'open those of which too little is known here (shown as -), and show more')
    .addOption(new Option('--no-encryption', 'with --long: take unencrypted snapshots; no password is asked for'))
    .option('--allow-plain', 'with --long: open unencrypted snapshots although a password is given')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace list --from file:///mnt/backups --server survival\n  $ millrace list --from file:///mnt/backups --long',
    )
    .action((options) => run(options, (invocation) => listCommand(options, invocation)))
}

interface ListOptions extends SecretOptions {
  from: string[]
  server?: string
  long?: boolean
  allowPlain?: boolean
}

export async function listCommand(options: ListOptions, { output, signal }: Invocation): Promise<number> {
  const { long = false, allowPlain, passwordFile, keyFile } = options
  if (!long && (passwordFile || keyFile)) {
    throw new BackupError('USAGE', 'A password or key is of use with --long only: nothing is opened without it.')
  }
  const keys = long && options.encryption !== false ? await findKeys(options, 'read') : undefined
  const stateFolder = defaultStateFolder()
  const storages: Storage[] = []
  try {
    for (const url of options.from) storages.push(await openStorage(url))
    const onFallback = fallbackTo(output)
    const { storage, snapshots: listed } = await listFirst(storages, options.server, { onFallback, signal })
    const cache = new HeadCache(stateFolder, storage.location)
    for (const [server, all] of Map.groupBy(listed, (one) => one.server)) await cache.keepOnly(server, all)
    const fetch = long ? { keys, allowPlain } : undefined
    const snapshots = await describeSnapshots(storage, listed, { stateFolder, fetch, signal })
    const verified = await new VerifyNotes(stateFolder, storage.location).verified(listed)
    if (output.json) {
      for (const snapshot of snapshots) {
        output.result('snapshot', { ...snapshot, verified: verified.get(snapshot.key) ?? null }, '')
      }
    } else {
      output.text(
        snapshots.length > 0
          ? table(snapshots, verified, long)
          : `No snapshots in ${storage.location}${options.server ? ` of ${options.server}` : ''}.`,
      )
    }
    return EXIT.GOOD
  } finally {
    for (const storage of storages) await storage.close()
  }
}

function table(snapshots: readonly KnownSnapshot[], verified: ReadonlyMap<string, Remembered>, long: boolean): string {
  const now = Date.now()
  return formatTable(
    ['SERVER', 'SNAPSHOT', 'AGE', 'STORED', 'KIND', 'CONSISTENCY', ...(long ? LONG_COLUMNS : []), 'STATE', 'VERIFIED'],
    snapshots.map((one) => [
      one.server,
      one.id,
      formatAge(now - one.created.getTime()),
      formatBytes(one.storedBytes),
      one.kind === 'tar' ? 'folder' : 'file',
      printable(one.known?.consistency ?? '-'),
      ...(long ? longCells(one) : []),
      `${one.complete ? 'complete' : 'unfinished'}${one.pinned ? ', pinned' : ''}${one.encrypted ? '' : ', not encrypted'}${one.problem ? `, ${printable(one.problem)}` : ''}`,
      lastVerified(verified.get(one.key), now),
    ]),
    long ? [3, 6, 7, 8] : [3],
  )
}

function lastVerified(last: Remembered | undefined, now: number): string {
  if (!last) return '-'
  const { status, mode, at } = last
  const age = now - at < 1000 ? 'now' : `${formatAge(now - at)} ago`
  return `${status === 'ok' ? '' : `${status}, `}${age}${mode === 'full' ? '' : ` (${mode})`}`
}

const LONG_COLUMNS = ['FILES', 'CONTENT', 'LEFT OUT']

function longCells({ known }: KnownSnapshot): string[] {
  if (!known) return ['-', '-', '-']
  return [String(known.files), formatBytes(known.bytes), String(known.excluded)]
}
