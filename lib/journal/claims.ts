import { open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ifHad } from '../archive/attributes.ts'
import { BackupError } from '../errors.ts'
import { makeFolders } from '../folders.ts'
import { type OwnerState, ownerState, thisRun } from './owner.ts'
import type { JournalRun } from './records.ts'

// A claim to a server's lease has a file beside the journals from before it is in the store until it is given back:
// <folder>/<server>/<id>.claim says whose process it is. So what a run leaves that is killed at any moment is known to
// be dead, also where it had not come to its journal.

const SUFFIX = '.claim'
const FILE_MODE = 0o600
const FOLDER_MODE = 0o700

interface FoundClaim {
  id: string
  owner: OwnerState
  /** In ms since 1970; 0 where the file was not finished, so that the claim was never made. */
  since: number
}

/** The claims of the runs of one server that keep journals in one folder. */
export class ClaimFiles {
  readonly #folder: string
  readonly #own: string[] = []

  /** @param folder of the server's journals. */
  constructor(folder: string) {
    this.#folder = folder
  }

  /** The ids of claims whose processes are known to be gone. */
  async dead(): Promise<string[]> {
    return (await this.#all()).filter(({ owner }) => owner === 'dead').map(({ id }) => id)
  }

  /** Writes down that this process is about to make a claim. @throws BackupError JOURNAL. */
  async note(id: string): Promise<void> {
    const file = this.#file(id)
    this.#own.push(id)
    try {
      await makeFolders(this.#folder, FOLDER_MODE)
      const handle = await open(file, 'wx', FILE_MODE)
      try {
        await ifHad(handle.chmod(FILE_MODE))
        await handle.writeFile(JSON.stringify(await thisRun(id)))
        await handle.sync()
      } finally {
        await handle.close()
      }
    } catch (cause) {
      throw new BackupError('JOURNAL', `The file ${file} cannot be written: ${(cause as Error).message}.`, { cause })
    }
  }

  /** This process has given its claims back. Never fails: a file that stays is of a dead process to the next run. */
  async dropOwn(): Promise<void> {
    for (const id of this.#own.splice(0)) await this.#remove(id)
  }

  /**
   * The lease was taken, so claims of the dead are gone from the store. Never fails: each run tries again.
   * @param limit those of whom nobody knows whether they live are forgotten when they are older, in ms since 1970.
   */
  async dropDead(limit: number): Promise<void> {
    for (const { id, owner, since } of await this.#all()) {
      const isOver = owner === 'dead' || (owner === 'unknown' && since < limit)
      if (isOver) await this.#remove(id)
    }
  }

  async #remove(id: string): Promise<void> {
    await rm(this.#file(id), { force: true }).catch(() => {})
  }

  async #all(): Promise<FoundClaim[]> {
    const names = await readdir(this.#folder).catch(() => [])
    const ids = names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length))
    return Promise.all(ids.filter((id) => !this.#own.includes(id)).map((id) => this.#lookAt(id)))
  }

  async #lookAt(id: string): Promise<FoundClaim> {
    try {
      const run = JSON.parse(await readFile(this.#file(id), 'utf8')) as JournalRun
      return { id, owner: run.lease === id ? await ownerState(run) : 'unknown', since: Number(run.since) }
    } catch {
      return { id, owner: 'unknown', since: 0 }
    }
  }

  #file(id: string): string {
    return join(this.#folder, `${id}${SUFFIX}`)
  }
}
