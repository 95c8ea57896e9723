import { formatBytes } from '../../lib/cli/format.ts'
import { barChart } from '../chart.ts'
import { publish } from '../support.ts'
import { LEVEL, type Peer, versions } from './peers.ts'
import type { Laps } from './race.ts'
import { groupsOf, HEADER, type Limits, losses, rowsOf } from './verdict.ts'

export interface RaceReport {
  name: string
  /** Where to, as in `into a folder`. */
  where: string
  peers: readonly Peer[]
  laps: Laps
  limits: Limits
  /** What the world holds. */
  written: { files: number; bytes: number }
  rounds: number
  caveats: readonly string[]
}

/** Publishes a race: the table, its picture, and what has to be known to read them. */
export function reportRace({ name, where, peers, laps, limits, written, rounds, caveats }: RaceReport): void {
  const size = formatBytes(written.bytes)
  const programs = versions(peers.flatMap(({ needs }) => needs))
  const question = `A backup of ${size} in ${written.files} files ${where} and its restore, by millrace and by others, in turn; medians of ${rounds}.`
  const own = losses(laps)
  publish(
    name,
    question,
    HEADER,
    rowsOf(laps, limits),
    { bytes: written.bytes, files: written.files, programs, limits, laps: Object.fromEntries(laps) },
    [
      ...(own.length > 0 ? own : ['millrace loses in nothing of this table.']),
      "The bar is the most that millrace's wall time may be of that program's.",
      `Each with its defaults, zstd at level ${LEVEL} where a level is given (restic's is its own "auto"): ${programs}. The very lines are in bench/peers/peers.ts.`,
      'The world (synthetic, bench/world.ts), what is restored, caches and temporary files are on tmpfs where there is one: no disk is measured, and fsync costs nobody anything.',
      'Each backup is a first one into an empty store. restic and borg store what did not change only once, so that their next backup of a world that changes little is a small part of this; millrace and the pipes send everything again.',
      'Before each of both the memory for it is touched and freed: a virtual machine may have to get it back from its host first, and then the first to use it would pay for all.',
      'A restore comes right after its backup and finds its caches. What each program restored was compared with the world, byte for byte, once, and the one file each time.',
      'millrace derives its key from the password with 600,000 iterations of PBKDF2 in each run, restic by scrypt, borg with 100,000 iterations, openssl with 10,000; age has a key pair, and rclone its own scrypt.',
      'The pipes write no index: one file out of them is all of it read, so they have no row for it. openssl authenticates nothing: damage goes unseen but by zstd.',
      'CPU is user and system time of all processes of the line. Peak memory is the largest sum of their resident sets, looked at every 50 ms; pages that they share are counted for each.',
      ...caveats,
    ],
    barChart({
      title: `Backup of ${size} ${where}, and whole restore`,
      unit: 's',
      groups: groupsOf(laps, limits),
      note: `Each is the strictest of millrace's bars. Wall time, medians of ${rounds}; thin lines are the runs.`,
    }),
  )
}
