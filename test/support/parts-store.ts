import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Writable } from 'node:stream'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { StorageLayer } from '../../adapters/layers/index.ts'
import {
  type FoundObject,
  type MultipartPrimitives,
  MultipartWritable,
  type PartBody,
  type TakenUp,
} from '../../adapters/multipart.ts'
import { parseUpload } from '../../adapters/multipart-taking-up.ts'
import type { CallOptions, Storage, WriteOptions } from '../../adapters/storage.ts'

/** Cuts frames of 1 MiB wherever it happens. */
export const PARTS_STORE_PART_BYTES = 300_001

export type PartsStep = 'begin' | 'putPart' | 'putWhole' | 'commit' | 'takeUp' | 'find' | 'lease' | 'companion'

/** When a process kills itself. */
export interface PartsMoment {
  step: PartsStep
  /** Which call of that step, from 0. */
  nth: number
  /** Before it has any effect, when half of the bytes have left, or when it is done and nobody has been told. */
  when: 'before' | 'within' | 'after'
}

/** Bytes of an object that a process had, and whether they left it. */
export interface SeenPiece {
  key: string
  offset: number
  /** Of the process. */
  run: string
  sent: boolean
  bytes: Buffer
}

/**
 * A store of objects in parts, in a folder, which outlives a process that is killed, and keeps every byte that any
 * process has sent it.
 */
export async function openPartsStore(root: string, moment?: PartsMoment): Promise<Storage> {
  for (const name of ['objects', 'uploads', 'seen', 'owners']) mkdirSync(join(root, name), { recursive: true })
  return new PartsStore(await openFilesystem({ root: join(root, 'objects') }), root, moment)
}

class PartsStore extends StorageLayer {
  readonly #root: string
  readonly #calls = new Map<PartsStep, number>()
  readonly #moment: PartsMoment | undefined

  constructor(inner: Storage, root: string, moment: PartsMoment | undefined) {
    super(inner)
    this.#root = root
    this.#moment = moment
    this.discardUpload = (key, upload, options) => this.discard(key, upload, options)
  }

  override createWriteStream(key: string, options: WriteOptions = {}): Writable {
    if (key.endsWith('.sha256')) this.#pass('companion', 'before')
    if (key.includes('/.lease/')) {
      this.#pass('lease', 'before')
      this.#pass('lease', 'after')
    }
    if (!/\.(mlr|zst)$/.test(key)) return this.inner.createWriteStream(key, options)
    const parts = new FolderParts(this.#root, key, (step, when) => this.#pass(step, when))
    return new MultipartWritable(parts, { ...options, adapter: 'parts', key, partBytes: PARTS_STORE_PART_BYTES })
  }

  protected override async discard(_key: string, upload: string, _options?: CallOptions): Promise<void> {
    const { id } = JSON.parse(parseUpload(upload)?.name ?? '{}')
    rmSync(join(this.#root, 'uploads', id), { recursive: true, force: true })
  }

  protected override async purge(
    olderThanMs: number,
    options: CallOptions & { prefix?: string } = {},
  ): Promise<number> {
    assert.equal(olderThanMs, 0, 'it keeps no times')
    const uploads = join(this.#root, 'uploads')
    const found = readdirSync(uploads).filter((id) => id.startsWith(named(options.prefix ?? '')))
    for (const id of found) rmSync(join(uploads, id), { recursive: true, force: true })
    return found.length
  }

  #pass(step: PartsStep, when: PartsMoment['when']): boolean {
    const nth = this.#calls.get(step) ?? 0
    if (when === 'after') this.#calls.set(step, nth + 1)
    const moment = this.#moment
    const isIt = moment?.step === step && moment.nth === nth && moment.when === when
    if (isIt && when !== 'within') process.kill(process.pid, 'SIGKILL')
    return isIt
  }
}

/** Told of each moment. @returns whether the process is to kill itself in the middle of what comes. */
type Pass = (step: PartsStep, when: PartsMoment['when']) => boolean

const RULES = {
  minPartBytes: 1,
  maxPartBytes: 1e9,
  alignBytes: 1,
  maxParts: 10_000,
  maxObjectBytes: 1e12,
  concurrency: 3,
}

/** A key as the name of a file, or the beginning of one. */
const named = (key: string) => key.replaceAll('/', '+')

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

class FolderParts implements MultipartPrimitives<string, { number: number; sha256: string }> {
  readonly rules = RULES
  readonly #root: string
  readonly #key: string
  readonly #pass: Pass
  readonly #run = `${process.pid}-${randomUUID()}`
  #write: string = randomUUID()
  #pieces = 0
  #isCommitted = false

  constructor(root: string, key: string, pass: Pass) {
    this.#root = root
    this.#key = key
    this.#pass = pass
  }

  async putWhole(body: Buffer): Promise<void> {
    this.#pass('putWhole', 'before')
    this.#see(0, body, true)
    if (this.#pass('putWhole', 'within')) process.kill(process.pid, 'SIGKILL')
    this.#place(body)
    this.#pass('putWhole', 'after')
  }

  async begin(): Promise<string> {
    this.#pass('begin', 'before')
    const id = `${named(this.#key)}+${randomUUID()}`
    mkdirSync(join(this.#root, 'uploads', id))
    this.#pass('begin', 'after')
    return id
  }

  async putPart(upload: string, { number, offset, body }: PartBody) {
    this.#pass('putPart', 'before')
    const half = this.#pass('putPart', 'within')
    this.#see(offset, half ? body.subarray(0, body.length / 2) : body, true)
    if (half) process.kill(process.pid, 'SIGKILL')
    const file = join(this.#root, 'uploads', upload, `${number}`)
    writeFileSync(`${file}.new`, body)
    renameSync(`${file}.new`, file)
    this.#pass('putPart', 'after')
    return { number, sha256: sha256(body) }
  }

  async commit(upload: string, receipts: { number: number; sha256: string }[]): Promise<void> {
    if (this.#isCommitted) return
    this.#pass('commit', 'before')
    const parts = receipts.map(({ number, sha256: wanted }) => {
      const bytes = readFileSync(join(this.#root, 'uploads', upload, `${number}`))
      if (sha256(bytes) !== wanted) throw new Error(`part ${number} is another`)
      return bytes
    })
    this.#place(Buffer.concat(parts))
    rmSync(join(this.#root, 'uploads', upload), { recursive: true })
    this.#pass('commit', 'after')
  }

  async abort(upload: string): Promise<void> {
    rmSync(join(this.#root, 'uploads', upload), { recursive: true, force: true })
  }

  async find(): Promise<FoundObject | undefined> {
    this.#pass('find', 'before')
    if (!existsSync(this.#object)) return undefined
    const ours = readFileSync(this.#owner, 'utf8') === this.#write
    this.#pass('find', 'after')
    return { size: statSync(this.#object).size, ours }
  }

  async remove(): Promise<void> {
    rmSync(this.#object)
  }

  nameOf(id: string): string {
    return JSON.stringify({ id, write: this.#write })
  }

  checksumOf(receipt: { sha256: string }): string {
    return receipt.sha256
  }

  async takeUp(
    name: string,
    _request: unknown,
    sureBytes: number,
  ): Promise<TakenUp<string, { number: number; sha256: string }> | undefined> {
    this.#pass('takeUp', 'before')
    const { id, write } = JSON.parse(name)
    const folder = join(this.#root, 'uploads', id)
    const made = existsSync(this.#object) && readFileSync(this.#owner, 'utf8') === write
    this.#isCommitted = made && statSync(this.#object).size <= sureBytes
    if (!existsSync(folder) && !this.#isCommitted) return undefined
    this.#write = write
    if (this.#isCommitted) return { upload: id, receiptOf: (part) => this.#receiptOf(part) }
    const held = new Map(
      readdirSync(folder)
        .filter((part) => !part.endsWith('.new'))
        .map((part) => [Number(part), sha256(readFileSync(join(folder, part)))]),
    )
    this.#pass('takeUp', 'after')
    return {
      upload: id,
      receiptOf: ({ number, offset, body }) => {
        this.#see(offset, body, false)
        return held.get(number) === sha256(body) ? { number, sha256: sha256(body) } : undefined
      },
    }
  }

  #receiptOf({ number, offset, body }: PartBody): { number: number; sha256: string } {
    this.#see(offset, body, false)
    return { number, sha256: sha256(body) }
  }

  get #object(): string {
    return join(this.#root, 'objects', this.#key)
  }

  get #owner(): string {
    return join(this.#root, 'owners', named(this.#key))
  }

  #place(bytes: Buffer): void {
    mkdirSync(dirname(this.#object), { recursive: true })
    writeFileSync(this.#owner, this.#write)
    writeFileSync(join(this.#root, 'new'), bytes)
    renameSync(join(this.#root, 'new'), this.#object)
  }

  #see(offset: number, bytes: Buffer, sent: boolean): void {
    const head = Buffer.from(`${JSON.stringify({ key: this.#key, offset, run: this.#run, sent })}\n`)
    const name = `${this.#run}-${String(this.#pieces++).padStart(6, '0')}`
    // In one step, whenever the process is killed; what is not there has not left it.
    const temporary = join(this.#root, name)
    writeFileSync(temporary, Buffer.concat([head, bytes]))
    renameSync(temporary, join(this.#root, 'seen', name))
  }
}

/** Every piece of an object that any process had in its hands. */
export function seenPieces(root: string): SeenPiece[] {
  return readdirSync(join(root, 'seen'))
    .sort()
    .map((name) => {
      const file = readFileSync(join(root, 'seen', name))
      const end = file.indexOf(10)
      return { ...JSON.parse(file.toString('utf8', 0, end)), bytes: file.subarray(end + 1) }
    })
}
