import { chmod, mkdir, open, readFile, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { resolvePassword } from '../../config/secret.ts'
import { BackupError } from '../../errors.ts'

const FOLDER = 'secrets'

/**
 * Secrets that somebody has typed, in memory until the config is written: then each goes into a file of its own, for the
 * owner's eyes only, in `secrets` beside the config.
 */
export class SecretBox {
  /** The config's folder. */
  readonly folder: string
  readonly #held = new Map<string, string>()

  constructor(folder: string) {
    this.folder = folder
  }

  /**
   * Takes a secret. A file that is there already keeps what it has, as it may be the only copy of a password: the new one
   * gets another name then.
   * @returns what to write in the config: `file:secrets/NAME`.
   * @throws BackupError TARGET when it cannot be told what is there.
   */
  async keep(name: string, value: string): Promise<string> {
    for (let number = 1; ; number += 1) {
      const file = `${FOLDER}/${number === 1 ? name : `${name}-${number}`}`
      const there = await textOf(join(this.folder, file))
      if (there === undefined || there === `${value}\n`) {
        this.#held.set(`file:${file}`, value)
        return `file:${file}`
      }
    }
  }

  /** Lets go of secrets that nothing refers to any more, as the answer was corrected. */
  keepOnly(references: ReadonlySet<string>): void {
    for (const one of this.#held.keys()) if (!references.has(one)) this.#held.delete(one)
  }

  /**
   * The secret that a reference of the config stands for, whether it was written yet or not.
   * @param what whose it is, for errors.
   * @throws BackupError USAGE.
   */
  async value(reference: string, what: string): Promise<string> {
    return this.#held.get(reference) ?? resolvePassword(reference, { folder: this.folder, what })
  }

  /**
   * Writes what is held: files of mode 0600 in a folder of mode 0700. Nothing is replaced.
   * @returns removes what was written.
   * @throws the file system's error; nothing is left then.
   */
  async write(): Promise<() => Promise<void>> {
    if (this.#held.size === 0) return async () => {}
    const folder = join(this.folder, FOLDER)
    const written: string[] = []
    const isNew = (await mkdir(folder, { recursive: true, mode: 0o700 })) !== undefined
    const undo = async () => {
      for (const file of written) await rm(file, { force: true })
      if (isNew) await rmdir(folder).catch(() => {})
    }
    try {
      await chmod(folder, 0o700)
      for (const [reference, value] of this.#held) {
        const file = join(this.folder, reference.slice('file:'.length))
        if ((await textOf(file)) === `${value}\n`) continue
        const handle = await open(file, 'wx', 0o600)
        written.push(file)
        try {
          await handle.writeFile(`${value}\n`)
          await handle.sync()
        } finally {
          await handle.close()
        }
      }
      return undo
    } catch (error) {
      await undo()
      throw error
    }
  }
}

/** @returns undefined when there is no such file; null for what is no file. */
async function textOf(file: string): Promise<string | undefined | null> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    if (code === 'EISDIR') return null
    throw new BackupError('TARGET', `The secret's file ${file} cannot be used: ${message}.`, { cause })
  }
}
