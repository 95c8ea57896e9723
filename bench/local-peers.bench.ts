// What do a backup into a folder and a restore from it take, beside the programs that one would take otherwise? All in
// the same run, in turn. MILLRACE_BENCH_BYTES sets the size of the world (2 GiB), MILLRACE_BENCH_RUNS the rounds (3).
import { join } from 'node:path'
import { install, localPeers } from './peers/peers.ts'
import { bytesBeneath, emptyFolder, middleFile, race } from './peers/race.ts'
import { reportRace } from './peers/report.ts'
import { tidily } from './peers/tidy.ts'
import type { Limits } from './peers/verdict.ts'
import { build } from './support.ts'
import { writeWorld } from './world.ts'

const RUNS = Number(process.env.MILLRACE_BENCH_RUNS ?? 3)
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const LIMITS: Limits = {
  backup: { 'tar | zstd | age': 0.6, restic: 0.45, borg: 0.33, 'tar | zstd | rclone crypt': 0.33 },
  restore: { 'tar | zstd | age': 0.8, restic: 0.5, borg: 0.4, 'tar | zstd | rclone crypt': 0.5 },
}

const peers = localPeers()
install([...peers.flatMap(({ needs }) => needs), 'diff', 'cmp'])
build()
await tidily(async (folder) => {
  const world = join(folder, 'world')
  const written = writeWorld(world, { bytes: BYTES })
  const local = join(folder, 'store')
  const store = {
    env: () => ({}),
    empty: async () => emptyFolder(local),
    storedBytes: async () => bytesBeneath(local),
  }
  const laps = await race(peers, { world, file: middleFile(world, 'region'), folder, rounds: RUNS, store })
  reportRace({
    name: 'local-peers',
    where: 'into a folder',
    peers,
    laps,
    limits: LIMITS,
    written,
    rounds: RUNS,
    caveats: [],
  })
})
