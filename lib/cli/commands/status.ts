import type { Command } from 'commander'
import { openStorage } from '../../../adapters/open.ts'
import type { Storage } from '../../../adapters/storage.ts'
import { parseDuration } from '../../duration.ts'
import { readStatus, type Status } from '../../status.ts'
import { EXIT, exitCodeOf } from '../exit-codes.ts'
import { formatAge, formatDuration, formatTable } from '../format.ts'
import { withMetrics, withStores } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import { reportMetrics } from '../stores.ts'

/** Adds `millrace status`. */
export function addStatus(program: Command, run: Runner): void {
  withMetrics(withStores(program.command('status'), '--from'))
    .description('Tell whether the backups of a server still come. Nothing is opened, so no password is needed.')
    .requiredOption('--server <name>', "the server's name")
    .option(
      '--max-age <time>',
      'exit with 6 when the newest complete snapshot is older (90m, 26h, 7d), or there is none',
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace status --from file:///mnt/backups --server survival --max-age 26h || mail-the-owner',
    )
    .action((options) => run(options, (invocation) => statusCommand(options, invocation)))
}

interface StatusOptions {
  from: string[]
  server: string
  maxAge?: string
  metricsFile?: string
}

/** Tells when backups stop: exit code 6 when the newest snapshot in any of the stores is too old. */
export async function statusCommand(options: StatusOptions, { output, signal }: Invocation): Promise<number> {
  const { server } = options
  const maxAgeMs = options.maxAge === undefined ? undefined : parseDuration(options.maxAge)
  const storages: Storage[] = []
  let code: number = EXIT.GOOD
  try {
    for (const url of options.from) storages.push(await openStorage(url))
    const found: Status[] = []
    for (const storage of storages) {
      try {
        const status = await readStatus(storage, server, { maxAgeMs, signal })
        found.push(status)
        output.result('status', status, line(status, maxAgeMs))
      } catch (error) {
        // The other stores are asked all the same, and not knowing is the worse answer.
        if (signal.aborted) throw error
        code = exitCodeOf(error)
        output.error(error as Error, code)
      }
    }
    await reportMetrics(options.metricsFile, server, storages, output, () => ({}))
    if (code === EXIT.GOOD && found.some(({ tooOld }) => tooOld)) code = EXIT.TOO_OLD
    return code
  } finally {
    for (const storage of storages) await storage.close()
  }
}

function line(status: Status, maxAgeMs: number | undefined): string {
  const { server, destination, newest, ageMs, snapshots, unfinished, future, tooOld } = status
  const limit = maxAgeMs === undefined ? '' : ` (at most ${formatDuration(maxAgeMs)})`
  const verdict = newest === null ? 'NO SNAPSHOT' : tooOld ? `TOO OLD${limit}` : `good${limit}`
  const rows = [
    ['state', verdict],
    ['newest', newest === null ? '-' : `${newest.id}, ${formatAge(ageMs as number)} old`],
    [
      'snapshots',
      `${snapshots} complete, ${unfinished} unfinished${future > 0 ? `, ${future} dated in the future` : ''}`,
    ],
  ]
  return formatTable([server, destination], rows)
}
