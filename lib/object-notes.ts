import { createHash, randomBytes } from 'node:crypto'
import { open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { makeFolders } from './folders.ts'

/** One object as it was when something was noted of it: another size or version is another object. */
export interface ObjectMark {
  key: string
  size: number
  version?: string | undefined
}

interface StateText {
  v: 1
  location: string
  entries: [string, unknown][]
}

/**
 * What is remembered of the objects of one store, in one JSON file. Nothing depends on it: what is lost, or written
 * over by another process, is found out again.
 */
export class ObjectNotes<T> {
  readonly #folder: string
  readonly #file: string
  readonly #location: string
  readonly #notes: Map<string, T>

  private constructor(folder: string, name: string, location: string, notes: Map<string, T>) {
    this.#folder = folder
    this.#file = fileOf(folder, name, location)
    this.#location = location
    this.#notes = notes
  }

  /**
   * Reads the notes of one kind. A file that is missing or cannot be understood is no notes.
   * @param folder the state folder; it need not exist.
   * @param name of the kind of note, as it may stand in a file's name.
   * @param location the store's `location`.
   * @param isNote whether a value that was read is a note of this kind.
   * @throws the error of node:fs when the file is there and cannot be read.
   */
  static async open<T>(
    folder: string,
    name: string,
    location: string,
    isNote: (value: unknown) => value is T,
  ): Promise<ObjectNotes<T>> {
    let text = ''
    try {
      text = await readFile(fileOf(folder, name, location), 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    return new ObjectNotes(folder, name, location, parse(text, location, isNote))
  }

  get size(): number {
    return this.#notes.size
  }

  get(mark: ObjectMark): T | undefined {
    return this.#notes.get(nameOf(mark))
  }

  set(mark: ObjectMark, note: T): void {
    this.#notes.set(nameOf(mark), note)
  }

  /** Forgets the objects under a prefix that are not among `marks`. */
  keepOnly(prefix: string, marks: readonly ObjectMark[]): void {
    const names = new Set(marks.map(nameOf))
    for (const name of this.#notes.keys()) {
      if ((JSON.parse(name) as [string])[0].startsWith(prefix) && !names.has(name)) this.#notes.delete(name)
    }
  }

  /** Writes the notes: a crash leaves the old file or the new one, whole. @throws the error of node:fs. */
  async save(): Promise<void> {
    const text: StateText = { v: 1, location: this.#location, entries: [...this.#notes] }
    await makeFolders(this.#folder, 0o700)
    const temporary = `${this.#file}.${randomBytes(6).toString('hex')}.tmp`
    try {
      const handle = await open(temporary, 'wx', 0o600)
      try {
        await handle.writeFile(`${JSON.stringify(text)}\n`)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(temporary, this.#file)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  }
}

function fileOf(folder: string, name: string, location: string): string {
  return join(folder, `${name}-${createHash('sha256').update(location).digest('hex').slice(0, 16)}.json`)
}

function nameOf({ key, size, version }: ObjectMark): string {
  return JSON.stringify([key, size, version ?? null])
}

function parse<T>(text: string, location: string, isNote: (value: unknown) => value is T): Map<string, T> {
  try {
    const state = JSON.parse(text) as StateText
    if (state.v !== 1 || state.location !== location) return new Map()
    const whole = state.entries.filter(([name, note]) => typeof JSON.parse(name)[0] === 'string' && isNote(note))
    return new Map(whole as [string, T][])
  } catch {
    return new Map()
  }
}
