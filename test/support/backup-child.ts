// Backs one server up, as often as its parent tells it to: for races of processes. A mark of its own in a folder, which
// no lease knows of, shows whether another one is at work at the same moment.
import { open, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { openStorage } from '../../adapters/open.ts'
import { type BackupError, openBackups } from '../../lib/index.ts'
import type { RaceOutcome, RaceSetup } from './backup-race.ts'
import { withoutConditions } from './lease-clock.ts'
import { sample } from './streams.ts'

const WORK_MS = 20

process.once('message', async ({ config, conditional, mark }: RaceSetup) => {
  const opened = await openStorage(config)
  const storage = conditional ? opened : withoutConditions(opened)
  const backups = await openBackups({ storage, server: 'survival', key: Buffer.alloc(32, 9) })
  async function* source() {
    const handle = await open(mark, 'wx')
    try {
      yield sample(1000)
      await delay(Math.random() * WORK_MS)
    } finally {
      await handle.close()
      await rm(mark)
    }
  }
  async function run(): Promise<RaceOutcome> {
    try {
      // A store that lists what was just written needs no time to settle.
      await backups.create(Readable.from(source(), { objectMode: false }), { lease: { settleMs: 0 } })
      return 'done'
    } catch (error) {
      const { code, message } = error as BackupError
      if (code === 'LEASE_HELD') return 'refused'
      return /EEXIST/.test(message) ? 'two at work' : `failed: ${message}`
    }
  }
  process.on('message', async () => process.send?.(await run()))
  process.send?.('ready')
})
