import { stat } from 'node:fs/promises'
import type { ArchiveWarning } from './archive/entry.ts'
import { sourceError } from './archive/walk.ts'
import { BackupError } from './errors.ts'
import type { LeftOut, SelectionOptions } from './exclude.ts'
import type { Destined } from './kept.ts'
import { unusedWarning } from './select.ts'
import { planFolder } from './source.ts'

/** What a plan is made of. */
export interface PlanOptions extends SelectionOptions {
  /** Called for each name that a pattern leaves out. */
  onLeftOut?: ((left: LeftOut) => void) | undefined
  /**
   * Called for what cannot be backed up: sockets and the like, names that are not UTF-8, folders that cannot be read;
   * and for include patterns that take nothing.
   */
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
  /** Where it would go to: a store in the folder, and what the backup itself writes there, are left out. */
  into?: Destined | undefined
  signal?: AbortSignal | undefined
}

/** What a backup of a folder or file would hold, by a look at it. */
export interface BackupPlan {
  kind: 'tar' | 'raw'
  files: number
  /** Files, folders and links; 1 for a file. */
  entries: number
  /** Bytes of the archive, before compression; or a little more. */
  bytes: number
  /** Names that patterns leave out; a folder counts once. */
  excluded: number
  /** The game whose defaults count; null for none. */
  game: string | null
}

/**
 * Looks at what would be backed up. Nothing is written, no store is opened, no server is told anything.
 * @throws BackupError SOURCE, USAGE; AbortError.
 */
export async function planBackup(source: string, options: PlanOptions = {}): Promise<BackupPlan> {
  const { onLeftOut, onWarning, signal } = options
  const found = await stat(source).catch((cause) => {
    throw sourceError(source, cause)
  })
  if (found.isFile()) return { kind: 'raw', files: 1, entries: 1, bytes: found.size, excluded: 0, game: null }
  if (!found.isDirectory()) {
    throw new BackupError('SOURCE', `The source ${JSON.stringify(source)} is neither a folder nor a file.`)
  }
  let excluded = 0
  const { selection, scan } = await planFolder(source, {
    ...options,
    onLeftOut(left) {
      excluded += 1
      onLeftOut?.(left)
    },
    onWarning,
    signal,
  })
  for (const pattern of selection.unused()) onWarning?.(unusedWarning(pattern, 'the source'))
  return { kind: 'tar', ...scan, excluded, game: selection.game }
}
