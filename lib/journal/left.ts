import { idTime } from '../names.ts'
import { listJournals } from './folder.ts'

/** An upload whose journal is on this machine. */
export interface LeftUpload {
  server: string
  id: string
  /** The store's; null where the journal cannot be read. */
  location: string | null
  source: string | null
  /** When it was begun, in ms since 1970. */
  since: number
  /** What the store has acknowledged. */
  storedBytes: number
  /** `resumable`, at work (`running`), one of these two (`unknown`), or not to be read (`damaged`). */
  state: 'resumable' | 'running' | 'unknown' | 'damaged'
  problem?: string
  /** The journal's file. */
  journal: string
}

/**
 * The uploads in a folder of journals, and how far each is.
 * @param locations only those to these stores, and those of which that is not known.
 * @throws BackupError JOURNAL when the folder cannot be read.
 */
export async function leftUploads(
  folder: string,
  locations: readonly string[],
  server?: string | undefined,
): Promise<LeftUpload[]> {
  const found = await listJournals(folder, server)
  return found.flatMap(({ file: journal, server: of, id, contents, problem, owner }) => {
    const since = idTime(id)?.getTime() ?? 0
    const names = { server: of, id, since, journal }
    if (!contents) {
      if (problem === undefined) return []
      return { ...names, location: null, source: null, storedBytes: 0, state: 'damaged' as const, problem }
    }
    const { location, source } = contents.head
    if (!locations.includes(location)) return []
    const state = ({ alive: 'running', dead: 'resumable', unknown: 'unknown' } as const)[owner]
    return { ...names, location, source, storedBytes: contents.storedBytes, state }
  })
}
