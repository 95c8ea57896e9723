import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { RCON_PASSWORD } from '../fakes/minecraft.ts'
import { startMillrace } from '../support/cli.ts'
import { backUpAndCheck, livePlace } from '../support/live-backups.ts'

const BACKUPS = 20

test('T32: twenty backups of a world that never holds still', async (t) => {
  const place = await livePlace(t, 3, 8)
  let changed = 0
  let reread = 0
  for (let i = 0; i < BACKUPS; i++) {
    const one = await backUpAndCheck(place)
    changed += one.changed.length
    reread += one.reread
  }
  // Else nothing was tried.
  assert.ok(reread > 0)
  t.diagnostic(`${reread} copies were appended again, ${changed} files counted as changed`)
})

test('T32: twenty backups of a server that is held still, some of them killed before', async (t) => {
  const place = await livePlace(t, 4, 24)
  const { live, folder } = place
  const env = { MILLRACE_RCON_PASSWORD: RCON_PASSWORD, MILLRACE_STATE_DIR: join(folder, 'state') }
  let killed = 0
  for (let i = 0; i < BACKUPS; i++) {
    if (i % 4 === 3) {
      const store = await mkdtemp(join(folder, 'store-'))
      const args = ['backup', live.world, '--to', `file://${store}`, '--server', 'survival']
      const { child, result } = startMillrace([...args, '--rcon', `127.0.0.1:${live.port}`, '--level', '19'], { env })
      while (child.exitCode === null && (await live.ask()).saving);
      child.kill('SIGKILL')
      await result
      if (!(await live.ask()).saving) killed += 1
    }
    const { made, changed, reread, generations } = await backUpAndCheck(place, place.quiescer())
    assert.deepEqual([made.consistency, changed, reread], ['quiesced', [], 0])
    const regions = [...generations].filter(([path]) => path.startsWith('region/') || path === 'level.dat')
    assert.equal(regions.length, 25)
    assert.equal(new Set(regions.flatMap(([, all]) => all)).size, 1)
    assert.equal((await live.ask()).saving, true)
  }
  t.diagnostic(`${killed} backups left saving off when they were killed`)
  assert.ok(killed > 0)
})
