import { openStorage } from '../../../adapters/open.ts'
import type { Storage } from '../../../adapters/storage.ts'
import type { Snapshot } from '../../catalog.ts'
import { listFirst } from '../../fallback.ts'
import { EXIT } from '../exit-codes.ts'
import { formatAge, formatBytes, formatTable } from '../format.ts'
import type { Invocation } from '../main.ts'
import { fallbackTo } from '../stores.ts'

interface ListOptions {
  from: string[]
  server?: string
}

export async function listCommand(options: ListOptions, { output, signal }: Invocation): Promise<number> {
  const storages: Storage[] = []
  try {
    for (const url of options.from) storages.push(await openStorage(url))
    const onFallback = fallbackTo(output)
    const { storage, snapshots } = await listFirst(storages, options.server, { onFallback, signal })
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
    for (const storage of storages) await storage.close()
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
      `${one.complete ? 'complete' : 'unfinished'}${one.encrypted ? '' : ', not encrypted'}`,
    ]),
    [3],
  )
}
