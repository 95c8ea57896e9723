import type { Command } from 'commander'
import type { ProbeReport } from '../../../adapters/storage.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { type ConfigOptions, configOf, openStore, storesToCheck } from '../configured.ts'
import { EXIT, exitCodeOf, gravest } from '../exit-codes.ts'
import { formatDuration, formatTable, printable } from '../format.ts'
import { withStore } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import { style } from '../style.ts'

/** Adds `millrace check`. */
export function addCheck(program: Command, run: Runner): void {
  withStore(program.command('check'), '--to')
    .description(
      'Test a store and its credentials without a backup: each right by name, timed, nothing left behind. Without --to: each destination of the config.',
    )
    .addHelpText(
      'after',
      "\nExample:\n  $ millrace check --to 's3://worlds/mc?endpoint=https://minio.example.org&profile=minio'",
    )
    .action((options) => run(options, (invocation) => checkCommand(options, invocation)))
}

interface CheckOptions extends ConfigOptions {
  to?: string
}

/** Tries every right that a backup needs on a small object of its own, and says which is missing. */
export async function checkCommand(options: CheckOptions, invocation: Invocation): Promise<number> {
  const { output, signal } = invocation
  const loaded = await configOf(options, output)
  const stores = storesToCheck(loaded, options.to)
  if (options.to !== undefined) return checkStore(loaded, options.to, invocation)
  const codes: number[] = []
  for (const store of stores) {
    try {
      codes.push(await checkStore(loaded, store, invocation))
    } catch (error) {
      // The others are checked all the same.
      if (signal.aborted) throw error
      codes.push(exitCodeOf(error))
      output.error(error as Error, exitCodeOf(error))
    }
  }
  return gravest(codes)
}

async function checkStore(
  loaded: LoadedConfig | undefined,
  store: string,
  { output, signal }: Invocation,
): Promise<number> {
  const storage = await openStore(loaded, store)
  try {
    const report = await storage.probe({ signal })
    const { location, conditionalWrites } = storage
    const steps = report.steps.map(({ step, ok, ms, error }) => ({ step, ok, ms, ...reasonOf(error) }))
    const fields = {
      ok: report.ok,
      location,
      conditionalWrites,
      steps,
      ...(report.found ? { found: report.found } : {}),
    }
    output.result('check', fields, textOf(report, location))
    return report.ok ? EXIT.GOOD : EXIT.FAILED
  } finally {
    await storage.close()
  }
}

function reasonOf(error: Error | undefined): { code?: string; message?: string } {
  if (error === undefined) return {}
  const { code } = error as { code?: unknown }
  return { ...(typeof code === 'string' ? { code } : {}), message: error.message }
}

function textOf(report: ProbeReport, location: string): string {
  const rows = report.steps.map(({ step, ok, ms, error }) => [
    step,
    ok ? style('good', 'ok') : style('bad', 'FAILED'),
    formatDuration(ms),
    printable(error?.message ?? ''),
  ])
  const found = Object.entries(report.found ?? {}).map(([name, value]) => `${WORDS[name] ?? name}: ${inWords(value)}`)
  const verdict = report.ok
    ? style('good', 'Everything that a backup needs works.')
    : style('bad', 'A backup would not work, or not all of it.')
  const seen = found.length > 0 ? `\nSeen of the store: ${found.join('; ')}.` : ''
  return `${location}\n\n${formatTable(['STEP', '', 'TIME', ''], rows, [2])}\n${seen}\n${verdict}`
}

const WORDS: Record<string, string> = {
  conditionalPut: 'honours If-None-Match on a put',
  conditionalComplete: 'honours it on objects in parts',
  checksum: 'a wrong checksum is',
}

function inWords(value: boolean | string): string {
  if (value === true) return 'yes'
  if (value === false) return 'no'
  return value
}
