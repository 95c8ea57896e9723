import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '../errors.ts'
import { isOpen, isUnbegunJournal, readJournal } from './journal.ts'
import { isThisProcess, type OwnerState, ownerState } from './owner.ts'
import type { JournalContents } from './records.ts'

// One file an upload: <folder>/<server>/<id>.journal.

const SUFFIX = '.journal'

/** A journal that was found. */
export interface FoundJournal {
  file: string
  server: string
  id: string
  /** undefined: it cannot be used, and `problem` says why, or its run had not begun to send. */
  contents: JournalContents | undefined
  problem: string | undefined
  /** Of the process that wrote it last. */
  owner: OwnerState
}

/** Where journals are kept where nothing else is said. */
export function journalFolder(stateFolder: string): string {
  return join(stateFolder, 'journals')
}

/** Where the journal of an upload is. */
export function journalFile(folder: string, server: string, id: string): string {
  return join(folder, server, `${id}${SUFFIX}`)
}

/**
 * The journals in a folder, the oldest first of each server; none when there is no folder.
 * @param server only of this one.
 * @throws BackupError JOURNAL when the folder cannot be read.
 */
export async function listJournals(folder: string, server?: string): Promise<FoundJournal[]> {
  const servers = server === undefined ? await namesIn(folder) : [server]
  const found: FoundJournal[] = []
  for (const one of servers.sort()) {
    const names = (await namesIn(join(folder, one))).filter((name) => name.endsWith(SUFFIX)).sort()
    for (const name of names) found.push(await lookAt(folder, one, name.slice(0, -SUFFIX.length)))
  }
  return found
}

async function lookAt(folder: string, server: string, id: string): Promise<FoundJournal> {
  const file = journalFile(folder, server, id)
  try {
    const contents = await readJournal(file)
    const { head, run } = contents
    if (head.server !== server || head.id !== id) {
      const problem = `It is of ${head.server} ${head.id}, and its name says another.`
      return { file, server, id, contents: undefined, problem, owner: 'unknown' }
    }
    // One that this process has closed is as one of a process that ended.
    const owner = !(await isThisProcess(run)) ? await ownerState(run) : isOpen(file) ? 'alive' : 'dead'
    return { file, server, id, contents, problem: undefined, owner }
  } catch (error) {
    if (!(error instanceof BackupError)) throw error
    const problem = (await isUnbegunJournal(file)) ? undefined : error.message
    return { file, server, id, contents: undefined, problem, owner: 'unknown' }
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new BackupError('JOURNAL', `The folder of journals ${folder} cannot be read: ${message}.`, { cause })
  }
}
