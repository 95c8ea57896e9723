import { equal } from 'node:assert/strict'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { scanFolder } from '../../lib/archive/scan.ts'
import { openBackups } from '../../lib/index.ts'
import { createHashThread, createOpenThread, createSealThread } from '../../transforms/index.ts'

// Backs up and verifies a folder that is large enough for every thread, where there is none to be had.
const [world = ''] = process.argv.slice(2)
const LARGE_BYTES = 80 * 1024 * 1024

const large = await open(join(world, 'region.mca'), 'w')
await large.truncate(LARGE_BYTES)
await large.close()
const { files } = await scanFolder(world, { threadAfter: 1 })
for (const password of ['a password', undefined]) {
  const keys = password === undefined ? { encryption: false } : { password }
  const backups = await openBackups({ storage: { provider: 'memory' }, server: 'world', ...keys })
  const made = await backups.create(world)
  equal(made.files, files)
  equal((await backups.verify(made.id)).status, 'ok')
  await backups.close()
}
const key = Buffer.alloc(32)
const refused = [() => createSealThread({ key }), () => createOpenThread({ key }), () => createHashThread()].map(
  (make) => {
    try {
      return make()
    } catch (error) {
      return error as Error & { code: string }
    }
  },
)
console.log(
  JSON.stringify({ files, refused: refused.map((error) => 'code' in error && `${error.code} ${error.message}`) }),
)
