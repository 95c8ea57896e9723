// Backs up and prunes, prunes, or restores, as its parent tells it to: a process that is killed in the middle of it.
import { openStorage } from '../../adapters/open.ts'
import { openBackups } from '../../lib/index.ts'
import { watchFileSystem } from './fs-moments.ts'
import type { ServiceDone, ServiceTask } from './kill-schedule.ts'

/** Not the default: whoever watches a dead holder waits for it, by a clock of its own or not. */
const lease = { ttlMs: 120_000 }

process.once('message', async (task: ServiceTask) => {
  const { config, server, key, work, policy, stateDir, folders, moment } = task
  const calls = watchFileSystem(folders, moment)
  const storage = await openStorage(config)
  const backups = await openBackups({ storage, server, key: Buffer.from(key, 'hex') })
  if (work.kind === 'restore') {
    await backups.restore('latest', work.target, work.options)
  } else {
    if (work.kind === 'backup') await backups.create(work.source, { ...work.options, lease })
    await backups.prune(policy, { stateDir, lease })
  }
  await backups.close()
  process.send?.({ calls: Object.fromEntries(calls) } satisfies ServiceDone)
  process.disconnect()
})
