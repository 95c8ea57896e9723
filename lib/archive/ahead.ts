import { close } from './io.ts'
import { type PreparedItem, prepareItem, SMALL_BYTES } from './read.ts'
import { type Reading, SmallFiles } from './small-files.ts'
import type { WalkItem } from './walk.ts'

/** Items that are opened and read ahead, at the same time: with SMALL_BYTES each, 1 MiB. */
const LOOKAHEAD = 32

/** With folders and symlinks, which are not read in batches. */
const LOOKAHEAD_BATCHED = 512

/** Files that are read one by one before a thread is begun that reads them in batches, which takes some 20 MiB. */
const FEW_FILES = 32

/** Files that are read one by one after a batch that was not worth it, before another one is tried. */
const MORE_FILES = 1024

const NOTHING = Buffer.alloc(0)

/** An item that waits for its turn. */
export interface Ahead {
  item: WalkItem
  /** What there is to archive, when its turn has come. Never rejects. */
  take(): PreparedItem | Promise<PreparedItem>
  /** Its bytes are in the archive, and their buffer may be used again. */
  release(): void
  /** Its turn will not come. */
  drop(): Promise<void>
}

/** The items that come next, in order, opened and read before their turn. */
export class Lookahead {
  readonly #root: string
  readonly #items: Ahead[] = []
  readonly #scratches: Buffer[] = []
  #smallFiles: SmallFiles | undefined
  /** Files to be read one by one before the next batch. */
  #oneByOne: number

  /** @param threadAfter files after which small ones are read in batches; 32 when left out. */
  constructor(root: string, threadAfter = FEW_FILES) {
    this.#root = root
    this.#oneByOne = threadAfter
  }

  /** The item whose turn it is; what waits for its batch to be full is read now. */
  head(): Ahead | undefined {
    this.#smallFiles?.flush()
    return this.#items[0]
  }

  /** The head has been taken. */
  shift(): void {
    this.#items.shift()
  }

  /** Closes every file that is open, and ends the thread. */
  async close(): Promise<void> {
    await this.#smallFiles?.close()
    for (const item of this.#items) await item.drop()
  }

  /** Whether one more item can be added; always where there is none, as no room for the next one would look like the end. */
  get hasRoom(): boolean {
    if (this.#items.length === 0) return true
    if (!this.#inBatches) return this.#items.length < LOOKAHEAD
    return this.#items.length < LOOKAHEAD_BATCHED && (this.#smallFiles?.hasRoom ?? true)
  }

  /** Opens and reads an item now, or with its batch. Only while `hasRoom`, or when an item that was asked for then came late. */
  add(item: WalkItem): void {
    // A folder's first item comes when its listing does, and there may be no room for it then.
    const isBatched = item.kind === 'file' && this.#inBatches && (this.#smallFiles?.hasRoom ?? true)
    if (item.kind === 'file' && this.#oneByOne > 0) this.#oneByOne--
    this.#items.push(isBatched ? this.#inBatch(item) : this.#alone(item))
  }

  /** Not after the thread has died: what is left is read one by one. */
  get #inBatches(): boolean {
    return this.#oneByOne === 0 && !this.#smallFiles?.isBroken
  }

  #alone(item: WalkItem): Ahead {
    const scratch = item.kind === 'file' ? this.#takeScratch() : NOTHING
    const prepared = prepareItem(this.#root, item, scratch)
    return {
      item,
      take: () => prepared,
      release: () => {
        if (scratch !== NOTHING) this.#scratches.push(scratch)
      },
      drop: async () => {
        const made = await prepared
        if (made.kind === 'open') await close(made.fd).catch(() => {})
      },
    }
  }

  #inBatch(item: WalkItem): Ahead {
    this.#smallFiles ??= new SmallFiles(this.#root)
    return new Batched(item, this.#smallFiles, this.#smallFiles.add(item.path), this)
  }

  /** Opens and reads by itself what its batch has left to whoever asked. */
  async prepare(item: WalkItem): Promise<{ prepared: PreparedItem; scratch: Buffer }> {
    const scratch = this.#takeScratch()
    return { prepared: await prepareItem(this.#root, item, scratch), scratch }
  }

  /** Whether batches have turned out to be of no use; files are read one by one then, for a while. */
  judge(files: SmallFiles): void {
    if (files.isOfNoUse) this.#oneByOne = MORE_FILES
  }

  giveBack(scratch: Buffer): void {
    this.#scratches.push(scratch)
  }

  #takeScratch(): Buffer {
    return this.#scratches.pop() ?? Buffer.allocUnsafeSlow(SMALL_BYTES)
  }
}

/** A file of a batch: an object each of hundreds of thousands, so it has no closures. */
class Batched implements Ahead {
  readonly item: WalkItem
  readonly #files: SmallFiles
  readonly #reading: Reading
  readonly #lookahead: Lookahead
  #scratch: Buffer | undefined

  constructor(item: WalkItem, files: SmallFiles, reading: Reading, lookahead: Lookahead) {
    this.item = item
    this.#files = files
    this.#reading = reading
    this.#lookahead = lookahead
  }

  take(): PreparedItem | Promise<PreparedItem> {
    const done = this.#reading.isDone ? undefined : this.#reading.done()
    return done ? done.then(() => this.#taken()) : this.#taken()
  }

  release(): void {
    this.#reading.release()
    if (this.#scratch) this.#lookahead.giveBack(this.#scratch)
  }

  async drop(): Promise<void> {}

  #taken(): PreparedItem | Promise<PreparedItem> {
    this.#lookahead.judge(this.#files)
    const plain = this.#reading.file()
    if (plain) return plain
    return this.#lookahead.prepare(this.item).then(({ prepared, scratch }) => {
      this.#scratch = scratch
      return prepared
    })
  }
}
