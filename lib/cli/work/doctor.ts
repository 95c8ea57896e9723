import { findConfigFile } from '../../config/find.ts'
import type { Finding, FindingState } from '../../doctor/index.ts'
import type { ConfigOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatCount, printable } from '../format.ts'
import type { Invocation } from '../run.ts'

interface DoctorCliOptions extends ConfigOptions {
  to?: string
}

/** Says of each thing that backups stand on whether it is good, and what to do where it is not. */
export async function doctorCommand({ config, to }: DoctorCliOptions, { output, signal }: Invocation): Promise<number> {
  const file = config === false ? undefined : await findConfigFile(typeof config === 'string' ? config : undefined)
  const { examine } = await import('../../doctor/index.ts')
  const counts: Record<FindingState, number> = { ok: 0, warn: 0, fail: 0 }
  for await (const finding of examine({ file, to, signal })) {
    counts[finding.state] += 1
    output.result('finding', finding, lineOf(finding))
  }
  const noConfig = file === undefined && to === undefined
  const text = [
    counts.fail > 0
      ? `${formatCount(counts.fail, 'failure')}, ${formatCount(counts.warn, 'warning')}. Backups do not work, or not all of them.`
      : counts.warn > 0
        ? `${formatCount(counts.warn, 'warning')}. Backups work.`
        : 'All is well.',
    ...(noConfig ? ['There is no config, so only the runtime was looked at; `millrace init` makes one.'] : []),
  ].join(' ')
  output.result('doctor', { ok: counts.fail === 0, config: file ?? null, counts }, `\n${text}`)
  return counts.fail > 0 ? EXIT.FAILED : EXIT.GOOD
}

function lineOf({ check, subject, state, message, advice }: Finding): string {
  const whose = subject === undefined ? '' : `${subject}: `
  const line = printable(`${state.padEnd(4)}  ${check.padEnd(16)}  ${whose}${message}`)
  return state === 'ok' || advice === undefined ? line : `${line}\n${' '.repeat(24)}${printable(advice)}`
}
