import type { Command } from 'commander'
import { stateFolderOf } from '../../config/settings.ts'
import { BackupError } from '../../errors.ts'
import { type RecordedRun, readRuns } from '../../history.ts'
import { checkServer } from '../../names.ts'
import { type ConfigOptions, configOf } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatDuration, formatTable, printable } from '../format.ts'
import { wholeNumber, withConfig } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'

const SHOWN = 30

/** Adds `millrace history`. */
export function addHistory(program: Command, run: Runner): void {
  withConfig(program.command('history'))
    .description('Show what came of the runs of backup, prune, verify and restore on this machine, the newest last.')
    .option('--server <name>', 'only this server')
    .option('--last <n>', `only the newest n (default: ${SHOWN})`, wholeNumber)
    .option('--json', 'one JSON object a line on stdout')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace history --server survival --last 10\n  $ millrace history --last 1000 --json',
    )
    .action((options) => run(options, (invocation) => historyCommand(options, invocation)))
}

interface HistoryOptions extends ConfigOptions {
  server?: string
  last?: number
}

/** Shows the log of runs that the state folder holds. */
export async function historyCommand(options: HistoryOptions, { output, signal }: Invocation): Promise<number> {
  const { server, last = SHOWN } = options
  if (server !== undefined) checkServer(server)
  if (!(Number.isSafeInteger(last) && last > 0)) throw new BackupError('USAGE', '--last takes a whole number above 0.')
  const folder = stateFolderOf(await configOf(options, output))
  let runs: RecordedRun[] = []
  for await (const one of readRuns(folder, { server })) {
    signal.throwIfAborted()
    runs.push(one)
    if (runs.length >= 2 * last) runs = runs.slice(-last)
  }
  runs = runs.slice(-last)
  if (output.json) for (const one of runs) output.result('run', one, '')
  else if (runs.length > 0) output.text(table(runs))
  else output.text(`No runs are recorded in ${folder}${server ? ` of ${server}` : ''}.`)
  return EXIT.GOOD
}

function table(runs: readonly RecordedRun[]): string {
  return formatTable(
    ['ENDED (UTC)', 'SERVER', 'COMMAND', 'OUTCOME', 'TOOK', 'CONTENT', 'STORED', 'SNAPSHOT', 'WHAT'],
    runs.map((run) => [
      new Date(run.at).toISOString().slice(0, 19).replace('T', ' '),
      printable(run.server),
      run.command,
      run.outcome === 'ok' ? 'ok' : `${run.outcome} (${run.exitCode})`,
      formatDuration(run.elapsedMs),
      bytesOf(run.bytes),
      bytesOf(run.storedBytes),
      printable(run.id ?? '-'),
      printable(whatOf(run)),
    ]),
    [4, 5, 6],
  )
}

function bytesOf(bytes: number | undefined): string {
  return bytes === undefined ? '-' : formatBytes(bytes)
}

function whatOf({ error, removed, destinations = [] }: RecordedRun): string {
  const refused = destinations.filter(({ ok }) => !ok).map(({ destination }) => `${destination} failed`)
  return [...(removed ? [`removed ${removed}`] : []), ...(error ? [error.message] : refused)].join('; ')
}
