import { resolve } from 'node:path'
import { StorageError } from '../../../adapters/errors.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { hasDestination, hasServer, serverSettings } from '../../config/settings.ts'
import { parseDuration } from '../../duration.ts'
import { BackupError } from '../../errors.ts'
import { replaceFile } from '../../replace-file.ts'
import { collectReport, type ReportPlace, type ReportStore } from '../../report/collect.ts'
import { buildReport, type ReportModel } from '../../report/model.ts'
import { renderReport } from '../../report/page.ts'
import { policyFor } from '../commands/prune.ts'
import { chooseAll, openStore, type PlaceOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatCount } from '../format.ts'
import { type KeepOptions, policyOf } from '../keep-options.ts'
import type { Output } from '../output.ts'
import type { Invocation } from '../run.ts'

const DEFAULT_FILE = 'report.html'

interface ReportOptions extends KeepOptions, PlaceOptions {
  output?: string
  maxAge?: string
}

/** Writes the page, or shows its model. Exit code 3: some of the stores could not be read. */
export async function reportCommand(options: ReportOptions, { output, signal }: Invocation): Promise<number> {
  policyOf(options)
  if (options.maxAge !== undefined) parseDuration(options.maxAge)
  const chosen = await chooseAll(options, output)
  const { loaded, stateFolder } = chosen[0] as (typeof chosen)[number]
  const settingsOf = (server: string) => {
    const settings = loaded && hasServer(loaded, server) ? serverSettings(loaded, server) : undefined
    return { policy: policyFor(options, settings?.retention), maxAge: options.maxAge ?? settings?.maxAge }
  }
  const opened = new Map<string, ReportStore>()
  let model: ReportModel
  try {
    const places: ReportPlace[] = []
    for (const { server, stores } of chosen) {
      for (const one of stores) if (!opened.has(one)) opened.set(one, await tryToOpen(loaded, one))
      places.push({ server, stores: stores.map((one) => opened.get(one) as ReportStore) })
    }
    model = buildReport(await collectReport(places, { settingsOf, stateFolder, now: new Date(), signal }))
  } finally {
    for (const one of opened.values()) if ('storage' in one) await one.storage.close()
  }
  return deliver(model, options, output)
}

/** A destination whose secret or whose server is not to be had is a problem to show, and no reason to show none. */
async function tryToOpen(loaded: LoadedConfig | undefined, store: string): Promise<ReportStore> {
  try {
    return { storage: await openStore(loaded, store) }
  } catch (error) {
    if (!loaded || !hasDestination(loaded, store)) throw error
    if (!(error instanceof BackupError || error instanceof StorageError)) throw error
    return { location: store, problem: error.message }
  }
}

async function deliver(model: ReportModel, options: ReportOptions, output: Output): Promise<number> {
  const { servers, unreadable } = model
  const problems = new Map(unreadable.map(({ location, reason }) => [location, reason]))
  for (const { location, problem } of servers.flatMap(({ stores }) => stores)) {
    if (problem !== null) problems.set(location, problem)
  }
  for (const [location, reason] of problems) {
    output.warning({ kind: 'store', path: location, message: `${location} could not be read: ${reason}` })
  }
  const file = options.output ?? (output.json ? undefined : DEFAULT_FILE)
  if (file !== undefined) await replaceFile(resolve(file), renderReport(model), { mode: 0o644, what: 'The report' })
  const states = servers.map(({ server, state }) => `\n  ${server}: ${state}`).join('')
  output.result('report', model, `Wrote ${file}: ${formatCount(servers.length, 'server')}${states}`)
  return problems.size > 0 ? EXIT.INCOMPLETE : EXIT.GOOD
}
