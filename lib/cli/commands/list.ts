import { openStorage } from '../../../adapters/open.ts'
import { listSnapshots, type Snapshot } from '../../catalog.ts'
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
    if (output.json) {
      for (const snapshot of snapshots) output.result('snapshot', snapshot, '')
    } else {
      output.result(
        'list',
        {},
        snapshots.length > 0
          ? table(snapshots)
          : `No snapshots in ${storage.location}${options.server ? ` of ${options.server}` : ''}.`,
      )
    }
    return EXIT.GOOD
  } finally {
    await storage.close()
  }
}

function table(snapshots: readonly Snapshot[]): string {
  const now = Date.now()
  return formatTable(
    ['SERVER', 'SNAPSHOT', 'AGE', 'STORED', 'KIND', 'STATE'],
    snapshots.map((one) => [
      one.server,
      one.id,
      formatAge(now - one.created.getTime()),
      formatBytes(one.storedBytes),
      one.kind === 'tar' ? 'folder' : 'file',
      `${one.complete ? 'complete' : 'unfinished'}${one.pinned ? ', pinned' : ''}${one.encrypted ? '' : ', not encrypted'}`,
    ]),
    [3],
  )
}
