import { openStorage } from '../../../adapters/open.ts'
import { listSnapshots, type Snapshot } from '../../catalog.ts'
import { defaultStateFolder } from '../../state.ts'
import { type Remembered, VerifyNotes } from '../../verify-notes.ts'
import { EXIT } from '../exit-codes.ts'
import { formatAge, formatBytes, formatTable } from '../format.ts'
import type { Invocation } from '../main.ts'

interface ListOptions {
  from: string
  server?: string
}

export async function listCommand(options: ListOptions, { output, signal }: Invocation): Promise<number> {
  const storage = await openStorage(options.from)
  try {
    const snapshots = await listSnapshots(storage, options.server, signal)
    const verified = await new VerifyNotes(defaultStateFolder(), storage.location).verified(snapshots)
    if (output.json) {
      for (const snapshot of snapshots) {
        output.result('snapshot', { ...snapshot, verified: verified.get(snapshot.key) ?? null }, '')
      }
    } else {
      output.result(
        'list',
        {},
        snapshots.length > 0
          ? table(snapshots, verified)
          : `No snapshots in ${storage.location}${options.server ? ` of ${options.server}` : ''}.`,
      )
    }
    return EXIT.GOOD
  } finally {
    await storage.close()
  }
}

function table(snapshots: readonly Snapshot[], verified: ReadonlyMap<string, Remembered>): string {
  const now = Date.now()
  return formatTable(
    ['SERVER', 'SNAPSHOT', 'AGE', 'STORED', 'KIND', 'STATE', 'VERIFIED'],
    snapshots.map((one) => [
      one.server,
      one.id,
      formatAge(now - one.created.getTime()),
      formatBytes(one.storedBytes),
      one.kind === 'tar' ? 'folder' : 'file',
      `${one.complete ? 'complete' : 'unfinished'}${one.pinned ? ', pinned' : ''}${one.encrypted ? '' : ', not encrypted'}`,
      lastVerified(verified.get(one.key), now),
    ]),
    [3],
  )
}

function lastVerified(last: Remembered | undefined, now: number): string {
  if (!last) return '-'
  const { status, mode, at } = last
  const age = now - at < 1000 ? 'now' : `${formatAge(now - at)} ago`
  return `${status === 'ok' ? '' : `${status}, `}${age}${mode === 'full' ? '' : ` (${mode})`}`
}
