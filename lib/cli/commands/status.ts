import type { Command } from 'commander'
import type { Storage } from '../../../adapters/storage.ts'
import { parseDuration } from '../../duration.ts'
import { readStatus, type Status } from '../../status.ts'
import { type Chosen, chooseAll, chooseServer, openStore, type PlaceOptions, serverOf } from '../configured.ts'
import { EXIT, exitCodeOf } from '../exit-codes.ts'
import { formatAge, formatDuration, formatTable } from '../format.ts'
import { withMetrics, withServer, withStores } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import { reportMetrics } from '../stores.ts'
import { style } from '../style.ts'

/** Adds `millrace status`. */
export function addStatus(program: Command, run: Runner): void {
  withServer(withMetrics(withStores(program.command('status'), '--from')))
    .description(
      'Tell whether the backups of a server still come; with a config, of each. Nothing is opened, so no password is needed.',
    )
    .option(
      '--max-age <time>',
      'exit with 6 when the newest complete snapshot is older (90m, 26h, 7d), or there is none (default: maxAge of the config)',
    )
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace status\n  $ millrace status --from file:///mnt/backups --server survival --max-age 26h || mail-the-owner',
    )
    .action((options) => run(options, (invocation) => statusCommand(options, invocation)))
}

interface StatusOptions extends PlaceOptions {
  maxAge?: string
  metricsFile?: string
}

/** Tells when backups stop: exit code 6 when the newest snapshot in any of the stores is too old. */
export async function statusCommand(options: StatusOptions, invocation: Invocation): Promise<number> {
  // Looked at before any store is asked.
  if (options.maxAge !== undefined) parseDuration(options.maxAge)
  const codes: number[] = []
  for (const place of await chooseAll(options, invocation.output)) {
    // Stores that are named alone are of the one server that the config has.
    const server = place.server ?? serverOf(undefined, place.loaded)
    const chosen = place.server === undefined ? chooseServer(place.loaded, server, options, '--from') : place
    codes.push(await statusOf({ ...chosen, server }, options, invocation))
  }
  // Not knowing is the worse answer than a snapshot that is too old.
  return codes.find((code) => code !== EXIT.GOOD && code !== EXIT.TOO_OLD) ?? Math.max(...codes)
}

async function statusOf(chosen: Chosen, options: StatusOptions, { output, signal }: Invocation): Promise<number> {
  const { loaded, server, stores, settings } = chosen
  const maxAge = options.maxAge ?? settings?.maxAge
  const maxAgeMs = maxAge === undefined ? undefined : parseDuration(maxAge)
  // What was listed goes into the metrics as well.
  const statuses = new Map<Storage, Promise<Status>>()
  let code: number = EXIT.GOOD
  let isTooOld = false
  try {
    for (const store of stores) {
      try {
        const storage = await openStore(loaded, store)
        const reading = readStatus(storage, server, { maxAgeMs, signal })
        statuses.set(storage, reading)
        const status = await reading
        isTooOld ||= status.tooOld
        output.result('status', status, line(status, maxAgeMs))
      } catch (error) {
        // The other stores are asked all the same.
        if (signal.aborted) throw error
        code = exitCodeOf(error)
        output.error(error as Error, code)
      }
    }
    const file = options.metricsFile ?? chosen.metricsFile
    const read = (storage: Storage) => statuses.get(storage) as Promise<Status>
    await reportMetrics(file, server, [...statuses.keys()], output, () => ({}), read)
    return code === EXIT.GOOD && isTooOld ? EXIT.TOO_OLD : code
  } finally {
    for (const storage of statuses.keys()) await storage.close()
  }
}

function line(status: Status, maxAgeMs: number | undefined): string {
  const { server, destination, newest, ageMs, snapshots, unfinished, future, tooOld } = status
  const limit = maxAgeMs === undefined ? '' : ` (at most ${formatDuration(maxAgeMs)})`
  const verdict =
    newest === null
      ? style('bad', 'NO SNAPSHOT')
      : tooOld
        ? style('bad', `TOO OLD${limit}`)
        : style('good', `good${limit}`)
  const rows = [
    ['state', verdict],
    ['newest', newest === null ? '-' : `${newest.id}, ${ageOf(ageMs as number)}`],
    [
      'snapshots',
      `${snapshots} complete, ${unfinished} unfinished${future > 0 ? `, ${future} dated in the future` : ''}`,
    ],
  ]
  return formatTable([server, destination], rows)
}

function ageOf(ms: number): string {
  return ms < 1000 ? formatAge(ms) : `${formatAge(ms)} old`
}
