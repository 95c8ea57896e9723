import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { scratch } from '../support/cli.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { startUpload } from '../support/killed-upload.ts'
import { seededBytes, seededRandom } from '../support/random.ts'
import { runAll } from '../support/storage-trials.ts'

const KILLS = 40
const BYTES = 3_000_000

it(`T8: killed at ${KILLS} moments of an upload, a folder holds whole objects only, and purgeUnfinished clears it`, async (t) => {
  const [seed = 1] = faultSeeds(1)
  const root = await scratch(t)
  const storage = await openFilesystem({ root })
  const counts = { whole: 0, reported: 0, absent: 0, old: 0 }
  const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

  const kill = async (index: number) => {
    const random = seededRandom(seed, 'kill', index)
    const key = `objects/${index}/world`
    const old = random.chance(0.3) ? Buffer.from(`the one before ${index}`) : undefined
    if (old) await new Promise((resolve) => storage.createWriteStream(key).on('close', resolve).end(old))
    const config = { provider: 'filesystem', root } as const
    const upload = await startUpload({ config, key, bytes: BYTES, seed: index, pauseMs: random.int(3) })
    upload.go()
    // Half of them around the commit, which is short.
    if (random.chance(0.5)) await upload.said('ending')
    await delay(random.next() * (random.chance(0.5) ? 5 : 60))
    await upload.kill()

    const found = await readFile(join(root, key)).catch(() => undefined)
    const listed: string[] = []
    for await (const object of storage.list(`objects/${index}/`)) listed.push(object.key)
    assert.deepEqual(listed, found ? [key] : [], 'something else is listed')
    if (upload.hasSaid('committed')) {
      counts.reported++
      assert.ok(found && sha256(found) === sha256(seededBytes(BYTES, index)), 'a commit was reported, and is not there')
    } else if (found && old?.equals(found)) counts.old++
    else if (found) {
      counts.whole++
      assert.equal(sha256(found), sha256(seededBytes(BYTES, index)), 'an object that is not whole is listed')
    } else {
      counts.absent++
      assert.equal(old, undefined, 'the old object is gone')
    }
  }
  await runAll(
    Array.from({ length: KILLS }, (_, index) => () => kill(index)),
    2,
  )

  const temporary = async () => (await readdir(root, { recursive: true })).filter((name) => /millrace-tmp-/.test(name))
  const left = (await temporary()).length
  assert.equal(await storage.purgeUnfinished?.(0), left)
  assert.deepEqual(await temporary(), [])
  const { whole, reported, absent, old } = counts
  console.log(
    `filesystem, ${KILLS} kills, seed ${seed}: ${absent} absent, ${old} old ones intact, ${whole} whole before the ` +
      `commit was reported, ${reported} after it; ${left} temporary files swept`,
  )
  assert.ok(left > 0, 'no kill came in the middle of an upload')
  assert.equal(whole + reported + absent + old, KILLS)
})
