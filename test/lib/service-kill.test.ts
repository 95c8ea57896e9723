import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { scratch } from '../support/cli.ts'
import { KINDS, KillRounds, lineOf, makeWorlds } from '../support/kill-rounds.ts'
import { startService } from '../support/kill-schedule.ts'

const KILLS = Number(process.env.KILLS ?? 60)
const SEED = process.env.MILLRACE_SEED ?? 'service'

test(`T8: kill -9 at ${KILLS} moments (seed ${SEED})`, async (t) => {
  const folder = await scratch(t)
  const root = join(folder, 'store')
  const storage = await openFilesystem({ root })
  const worlds = await makeWorlds(folder, 16, 200_000)
  const cache = join(folder, 'cache')
  const rounds = await KillRounds.open(
    {
      name: 'filesystem',
      storage,
      folder,
      worlds,
      create: { zstdFrameBytes: 256 * 1024 },
      run: ({ place, ...task }) =>
        startService({ ...task, config: { provider: 'filesystem', root }, folders: { store: root, place } }, cache)
          .ended,
      pending: async (server) =>
        (await readdir(join(root, server), { recursive: true })).filter((name) => name.includes('millrace-tmp-'))
          .length,
    },
    'first',
    SEED,
  )
  for (let i = 0; i < KILLS; i++) await rounds.kill(KINDS[i % 3]!)
  await rounds.end()
  console.log(lineOf('filesystem', KILLS, SEED, rounds.counts))
})
