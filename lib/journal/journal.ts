import { randomBytes } from 'node:crypto'
import { type FileHandle, open, readFile, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { syncFolder } from '../../adapters/filesystem-paths.ts'
import { type FrameLedger, SEAL_BYTES } from '../../transforms/index.ts'
import { ifHad } from '../archive/attributes.ts'
import { BackupError } from '../errors.ts'
import { makeFolders } from '../folders.ts'
import {
  decodeJournal,
  encodeBlock,
  encodeJournalHeader,
  isUnbegun,
  JOURNAL_HEADER_BYTES,
  type JournalRecord,
} from './format.ts'
import type { CommittedObject, JournalContents, JournalHead, JournalRun, UploadRecord } from './records.ts'

const FILE_MODE = 0o600
const FOLDER_MODE = 0o700

/** Those that this process has open. */
const active = new Set<string>()

/** Whether this process is at work on a journal. */
export function isOpen(file: string): boolean {
  return active.has(resolve(file))
}

/** Reads a journal and changes nothing. @throws BackupError JOURNAL. */
export async function readJournal(file: string): Promise<JournalContents> {
  return decodeJournal(await readBytes(file)).contents
}

/** Whether the run that made a journal never came to write its first block, and so sent nothing. */
export function isUnbegunJournal(file: string): Promise<boolean> {
  return readFile(file).then(isUnbegun, () => false)
}

/**
 * A journal that is written: what is put down is on the disk when `flush` resolves. As a ledger of frames it gives those
 * that were in it when it was opened.
 */
export class Journal implements FrameLedger {
  readonly file: string
  readonly head: JournalHead
  /** What it said when it was opened; undefined for a new one. */
  readonly before: JournalContents | undefined
  readonly #handle: FileHandle
  readonly #id: Buffer
  #at: number
  #blocks: number
  #frames: number
  #pending: JournalRecord[] = []
  #seals: Buffer[] = []
  #header: Buffer | undefined
  /** Ends with the last block that was asked for: one is written at a time. */
  #tail: Promise<void> = Promise.resolve()
  /** A block that has not been begun. */
  #queued: Promise<void> | undefined
  #failure: { error: unknown } | undefined

  private constructor(
    file: string,
    handle: FileHandle,
    id: Buffer,
    head: JournalHead,
    before: JournalContents | undefined,
    at: { bytes: number; blocks: number },
  ) {
    this.file = file
    this.head = head
    this.before = before
    this.#handle = handle
    this.#id = id
    this.#at = at.bytes
    this.#blocks = at.blocks
    this.#frames = before?.frames ?? 0
    this.#header = before?.header
    active.add(resolve(file))
  }

  /** Makes a journal; it and its name are on the disk then. @throws BackupError JOURNAL. */
  static async create(file: string, head: JournalHead, run: JournalRun): Promise<Journal> {
    return explained(file, 'made', async () => {
      await makeFolders(dirname(file), FOLDER_MODE)
      const handle = await open(file, 'wx+', FILE_MODE)
      try {
        await ifHad(handle.chmod(FILE_MODE))
        const id = randomBytes(JOURNAL_HEADER_BYTES - 8)
        await handle.writeFile(encodeJournalHeader(id))
        const journal = new Journal(file, handle, id, head, undefined, { bytes: JOURNAL_HEADER_BYTES, blocks: 0 })
        journal.#pending.push({ type: 'head', head }, { type: 'run', run })
        await journal.flush()
        await syncFolder(dirname(file))
        await syncFolder(dirname(dirname(file)))
        return journal
      } catch (error) {
        active.delete(resolve(file))
        await handle.close().catch(() => {})
        // Nothing was sent, so there is nothing to take up.
        await rm(file, { force: true }).catch(() => {})
        throw error
      }
    })
  }

  /** Opens a journal to go on with it. A torn last block is cut off. @throws BackupError JOURNAL. */
  static async open(file: string, run: JournalRun): Promise<Journal> {
    const { id, contents, goodBytes: bytes, blocks } = decodeJournal(await readBytes(file))
    return explained(file, 'opened', async () => {
      const handle = await open(file, 'r+')
      try {
        await handle.truncate(bytes)
        await handle.sync()
        const journal = new Journal(file, handle, id, contents.head, contents, { bytes, blocks })
        journal.#pending.push({ type: 'run', run })
        await journal.flush()
        return journal
      } catch (error) {
        active.delete(resolve(file))
        await handle.close()
        throw error
      }
    })
  }

  get header(): Buffer | undefined {
    return this.before?.header
  }

  seal(frame: number): Buffer | undefined {
    const { before } = this
    if (!before || frame >= before.frames) return undefined
    return before.seals.subarray(frame * SEAL_BYTES, (frame + 1) * SEAL_BYTES)
  }

  begin(header: Buffer): void {
    if (this.#header) throw new Error('an object has one header')
    this.#header = header
    this.#pending.push({ type: 'header', header })
  }

  add(frame: number, seal: Buffer): void {
    if (frame !== this.#frames + this.#seals.length) throw new Error(`frame ${frame} is out of its turn`)
    this.#seals.push(seal)
  }

  /** Puts down what the store calls the upload. */
  begun(upload: UploadRecord): void {
    this.#put({ type: 'upload', upload })
  }

  /** Puts down that the store has acknowledged a part. It reaches the disk with what follows it. */
  stored(number: number, bytes: number, checksum: string): void {
    this.#put({ type: 'part', number, bytes, checksum })
  }

  /** Puts down that the store has committed the object: only its companion is missing. */
  done(done: CommittedObject): void {
    this.#put({ type: 'done', done })
  }

  /** Resolves when all that was put down is on the disk. @throws BackupError JOURNAL; nothing may be sent then. */
  flush(): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure.error)
    // What is put down until the block before it is durable goes with it.
    if (this.#queued) return this.#queued
    if (this.#pending.length === 0 && this.#seals.length === 0) return this.#tail
    this.#queued = this.#tail.then(() => {
      this.#queued = undefined
      return this.#write()
    })
    this.#tail = this.#queued
    return this.#queued
  }

  /** Puts down what is left, where it can be, and closes the file. */
  async close(): Promise<void> {
    await this.flush().catch(() => {})
    active.delete(resolve(this.file))
    await this.#handle.close()
  }

  /** Closes the file and removes it: nothing is to be taken up. */
  async remove(): Promise<void> {
    await this.close()
    await rm(this.file, { force: true })
  }

  #put(record: JournalRecord): void {
    this.#takeSeals()
    this.#pending.push(record)
  }

  #takeSeals(): void {
    if (this.#seals.length === 0) return
    this.#pending.push({ type: 'seals', first: this.#frames, seals: Buffer.concat(this.#seals) })
    this.#frames += this.#seals.length
    this.#seals = []
  }

  async #write(): Promise<void> {
    try {
      this.#takeSeals()
      const block = encodeBlock(this.#id, this.#blocks, this.#pending)
      this.#pending = []
      await explained(this.file, 'written', async () => {
        const { bytesWritten } = await this.#handle.write(block, 0, block.length, this.#at)
        if (bytesWritten !== block.length) throw new Error('the disk took only a part of it')
        await this.#handle.datasync()
      })
      this.#at += block.length
      this.#blocks += 1
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }
}

async function readBytes(file: string): Promise<Buffer> {
  return explained(file, 'read', () => readFile(file))
}

async function explained<T>(file: string, what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof BackupError) throw cause
    throw new BackupError('JOURNAL', `The journal ${file} cannot be ${what}: ${(cause as Error).message}.`, { cause })
  }
}
