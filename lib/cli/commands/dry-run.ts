import type { ArchiveWarning } from '../../archive/entry.ts'
import { BackupError } from '../../errors.ts'
import type { LeftOut, SelectionOptions } from '../../exclude.ts'
import type { Destined } from '../../kept.ts'
import { planBackup } from '../../plan.ts'
import type { BackupSource } from '../../source.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatTable, printable } from '../format.ts'
import type { Invocation } from '../run.ts'

/** Shows what `backup` would back up, and what it would leave out and why. */
export async function dryRun(
  source: BackupSource,
  selection: SelectionOptions,
  into: Destined,
  { output, signal }: Invocation,
): Promise<number> {
  if (typeof source !== 'string') {
    throw new BackupError(
      'USAGE',
      "--dry-run looks at a folder or file; a program's output is not known before it runs.",
    )
  }
  const rows: string[][] = []
  const plan = await planBackup(source, {
    ...selection,
    into,
    signal,
    onLeftOut(left) {
      if (output.json) output.result('left-out', left, '')
      else rows.push([printable(left.path + (left.folder ? '/' : '')), reasonOf(left)])
    },
    onWarning(warning: ArchiveWarning) {
      if (output.json || warning.kind === 'pattern') output.warning(warning)
      else rows.push([printable(warning.path), printable(warning.message)])
    },
  })
  const { files, entries, bytes, excluded, game } = plan
  const lines = [
    `Would back up ${formatCount(files, 'file')} (${formatCount(entries, 'entry', 'entries')}), ${formatBytes(bytes)} before compression`,
    ...(game === null ? [] : [`  recognised as: ${game}; its defaults count (--no-default-excludes turns them off)`]),
    ...(excluded > 0 ? [`  left out by patterns: ${formatCount(excluded, 'name')}`] : []),
    ...(rows.length > 0 ? ['', formatTable(['LEFT OUT', 'WHY'], rows)] : []),
  ]
  output.result('plan', plan, lines.join('\n'))
  return EXIT.GOOD
}

function reasonOf({ pattern, origin }: LeftOut): string {
  if (origin === 'include') return 'no include pattern takes it'
  if (origin === 'destination') return 'a store of its backups'
  return origin === 'state' ? 'what millrace keeps between runs' : printable(`${pattern} (${origin})`)
}
