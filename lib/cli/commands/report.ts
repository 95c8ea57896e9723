import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { openStorage } from '../../../adapters/open.ts'
import type { Storage } from '../../../adapters/storage.ts'
import { parseDuration } from '../../duration.ts'
import { BackupError } from '../../errors.ts'
import { collectReport } from '../../report/collect.ts'
import { buildReport, type ReportModel } from '../../report/model.ts'
import { renderReport } from '../../report/page.ts'
import { defaultStateFolder } from '../../state.ts'
import { EXIT } from '../exit-codes.ts'
import { formatCount } from '../format.ts'
import { type KeepOptions, policyOf, withKeep } from '../keep-options.ts'
import { wholeNumber, withStores } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'

const DEFAULT_FILE = 'report.html'

/** Adds `millrace report`. */
export function addReport(program: Command, run: Runner): void {
  withKeep(withStores(program.command('report'), '--from'), wholeNumber)
    .description('Write a page about the backups. Nothing is opened, so no password is needed.')
    .option('--server <name>', 'only this server (default: all that the stores have)')
    .option('-o, --output <file>', `where to write it (default: ${DEFAULT_FILE}); replaced at once`)
    .option('--max-age <time>', 'a newest snapshot that is older (90m, 26h, 7d) is shown as a problem')
    .addHelpText(
      'after',
      `
The --keep options say which policy to show; without one it is the default of \`millrace prune\`.
With --json the model of the page goes to stdout, and the page is written where -o says so.

Examples:
  $ millrace report --from file:///mnt/backups -o /var/www/backups.html
  $ millrace report --from file:///mnt/backups --server survival --max-age 26h --keep-daily 30 --keep-monthly 12`,
    )
    .action((options) => run(options, (invocation) => reportCommand(options, invocation)))
}

interface ReportOptions extends KeepOptions {
  from: string[]
  server?: string
  output?: string
  maxAge?: string
}

/** Writes the page, or shows its model. Exit code 3: some of the stores could not be read. */
export async function reportCommand(options: ReportOptions, { output, signal }: Invocation): Promise<number> {
  const { server, maxAge } = options
  const policy = policyOf(options)
  if (maxAge !== undefined) parseDuration(maxAge)
  const storages: Storage[] = []
  let model: ReportModel
  try {
    for (const url of options.from) storages.push(await openStorage(url))
    const stateFolder = defaultStateFolder()
    model = buildReport(await collectReport(storages, { server, policy, maxAge, stateFolder, now: new Date(), signal }))
  } finally {
    for (const storage of storages) await storage.close()
  }
  for (const { location, reason } of model.unreadable) {
    output.warning({ kind: 'store', path: location, message: `${location} is not in the report: ${reason}` })
  }
  const file = options.output ?? (output.json ? undefined : DEFAULT_FILE)
  if (file !== undefined) await replaceFile(resolve(file), renderReport(model))
  const states = model.servers.map((one) => `\n  ${one.server}: ${one.state}`).join('')
  output.result('report', model, `Wrote ${file}: ${formatCount(model.servers.length, 'server')}${states}`)
  return model.unreadable.length > 0 ? EXIT.INCOMPLETE : EXIT.GOOD
}

/** Whoever reads the file meanwhile sees the old page or the new one. @throws BackupError TARGET. */
async function replaceFile(file: string, text: string): Promise<void> {
  const partial = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const handle = await open(partial, 'wx', 0o644)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, file)
  } catch (cause) {
    await rm(partial, { force: true }).catch(() => {})
    throw new BackupError('TARGET', `The report ${file} cannot be written: ${(cause as Error).message}.`, { cause })
  }
}
