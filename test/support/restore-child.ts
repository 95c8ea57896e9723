// Restores a snapshot as its parent tells it to: a process that can be killed in the middle of it.
import { openBackups } from '../../lib/index.ts'
import type { RestoreOptions } from '../../lib/restore.ts'

export interface ChildRestore {
  storage: string
  /** Of a raw key, hex. */
  key: string
  target: string
  options: RestoreOptions
}

process.once('message', async ({ storage, key, target, options }: ChildRestore) => {
  const backups = await openBackups({ storage, server: 'world', key: Buffer.from(key, 'hex') })
  process.send?.('ready')
  await new Promise((resolve) => process.once('message', resolve))
  const { resumed } = await backups.restore('latest', target, options)
  process.send?.(resumed ? 'resumed' : 'restored')
  process.disconnect()
})
