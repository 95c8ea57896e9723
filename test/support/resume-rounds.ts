import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type Backups, type ListedSnapshot, openBackups } from '../../lib/index.ts'
import { listJournals } from '../../lib/journal/folder.ts'
import { HEADER_BYTES } from '../../transforms/index.ts'
import { childPath } from './children.ts'
import { openPartsStore, type PartsMoment, seenPieces } from './parts-store.ts'
import { type Random, seededBytes, seededRandom } from './random.ts'
import type { ResumeDone, ResumeTask } from './resume-child.ts'
import { diffTrees } from './tree.ts'

const FRAME = 1024 * 1024 + 28
const NONCE = 12
const KEY = '03'.repeat(32)
const WORLD_TIME = new Date('2026-11-01T12:00:00Z')

/** A world, a store in a folder, and runs over them that are killed and taken up. */
export class ResumeRounds {
  readonly root: string
  readonly source: string
  readonly journals: string
  readonly #folder: string
  readonly #random: Random
  readonly #cache: string
  readonly key: string | undefined

  /**
   * @param key false: snapshots are not encrypted.
   * @param journals where they are kept; beside the world when left out.
   */
  constructor(t: TestContext, seed: string, key = true, journals = 'journals') {
    this.#folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
    t.after(() => rmSync(this.#folder, { recursive: true, force: true }))
    this.root = join(this.#folder, 'store')
    this.source = join(this.#folder, 'world')
    this.journals = join(this.#folder, journals)
    this.#cache = join(this.#folder, 'compiled')
    this.#random = seededRandom(seed, 'resume')
    this.key = key ? KEY : undefined
    mkdirSync(join(this.source, 'region'), { recursive: true })
    // A process may be killed before it makes them.
    for (const name of ['seen', 'uploads']) mkdirSync(join(this.root, name), { recursive: true })
    for (let file = 0; file < 5; file += 1)
      this.writeFile(`region/r.${file}.0.mca`, 900_000 + this.#random.int(1_000_000))
    this.#age()
  }

  /** A file of noise that is the same for the same size and `kind`. */
  writeFile(path: string, bytes: number, kind = 'noise'): void {
    const seed = seededRandom(path, bytes, kind).int(2 ** 31)
    writeFileSync(join(this.source, path), seededBytes(bytes, seed))
    this.#age()
  }

  /** So that two worlds with the same files are the same. */
  #age(): void {
    for (const name of readdirSync(join(this.source, 'region'))) {
      utimesSync(join(this.source, 'region', name), WORLD_TIME, WORLD_TIME)
    }
    for (const folder of [join(this.source, 'region'), this.source]) utimesSync(folder, WORLD_TIME, WORLD_TIME)
  }

  /**
   * Runs a backup.
   * @param stop when it kills itself, or after how many ms it is killed.
   * @returns what it said; null when it was killed.
   */
  async run(stop?: PartsMoment | number, resume: ResumeTask['resume'] = true): Promise<ResumeDone | null> {
    const child = fork(childPath('resume'), {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { NODE_COMPILE_CACHE: this.#cache, ...process.env },
    })
    let said: ResumeDone | undefined
    let complaints = ''
    child.on('message', (message: ResumeDone) => {
      said = message
    })
    child.stderr?.on('data', (chunk) => {
      complaints += chunk
    })
    const { root, source, journals } = this
    const moment = typeof stop === 'object' ? stop : undefined
    const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    child.send({ root, source, journals, resume, moment, ...(this.key ? { key: this.key } : {}) } satisfies ResumeTask)
    if (typeof stop === 'number') void delay(stop).then(() => child.kill('SIGKILL'))
    const [code, signal] = await exit
    this.assertNoncesOnce()
    if (signal === 'SIGKILL') {
      await this.#assertJournalAhead()
      return null
    }
    assert.equal(code, 0, complaints)
    assert.ok(said, `it said nothing: ${complaints}`)
    return said
  }

  /** A moment in a run of so many parts. */
  pickMoment(parts: number): PartsMoment {
    const step = this.#random.weighted({ putPart: 12, commit: 2, takeUp: 1, find: 1 }) as PartsMoment['step']
    const nth = step === 'putPart' ? this.#random.int(parts) : 0
    const whens = step === 'putPart' ? (['before', 'within', 'after'] as const) : (['before', 'after'] as const)
    return { step, nth, when: this.#random.pick(whens) }
  }

  /** The world is in the store as it is, and nothing else is anywhere. */
  async assertWhole(id: string, ignore: Parameters<typeof diffTrees>[2] = []): Promise<void> {
    const backups = await this.#open()
    try {
      const listed = await backups.list()
      assert.ok(listed.find((one) => one.id === id)?.complete, `${id} is not complete`)
      assert.equal((await backups.verify(id)).status, 'ok')
      const target = join(this.#folder, `restored-${id}`)
      await backups.restore(id, target)
      assert.deepEqual(diffTrees(this.source, target, ignore), [])
      rmSync(target, { recursive: true })
    } finally {
      await backups.close()
    }
    assert.equal(this.uploads(), 0, 'an upload is left')
    assert.deepEqual(await listJournals(this.journals), [], 'a journal is left')
  }

  async #open(): Promise<Backups> {
    const storage = await openPartsStore(this.root)
    const keys = this.key ? { key: Buffer.from(this.key, 'hex') } : { encryption: false }
    return openBackups({ storage, server: 'survival', ...keys })
  }

  async snapshots(): Promise<ListedSnapshot[]> {
    const backups = await this.#open()
    try {
      return await backups.list()
    } finally {
      await backups.close()
    }
  }

  /** As it has expired, for a run whose journal does not say whose it is. */
  dropLease(): void {
    rmSync(join(this.root, 'objects', 'survival', '.lease'), { recursive: true, force: true })
  }

  /** As a store's rule cancels them. */
  dropUploads(): void {
    for (const id of readdirSync(join(this.root, 'uploads')))
      rmSync(join(this.root, 'uploads', id), { recursive: true })
  }

  uploads(): number {
    return readdirSync(join(this.root, 'uploads')).length
  }

  /** Of all bytes that ever left any process: one nonce of an object has one frame, and one ciphertext. */
  assertNoncesOnce(): void {
    if (!this.key) return
    const byNonce = new Map<string, { frame: number; bytes: Buffer; known: Buffer }>()
    for (const { key, frame, nonce, bytes, left } of this.#frames()) {
      const name = `${key} ${nonce}`
      const known = byNonce.get(name)
      if (!known) {
        byNonce.set(name, { frame, bytes: Buffer.from(bytes), known: Buffer.from(left) })
        continue
      }
      assert.equal(known.frame, frame, `the nonce of frame ${known.frame} of ${key} was used for frame ${frame}`)
      for (let at = 0; at < FRAME; at += 1) {
        if (!left[at]) continue
        if (known.known[at] && known.bytes[at] !== bytes[at]) {
          assert.fail(`two ciphertexts under the nonce of frame ${frame} of ${key} have left`)
        }
        known.bytes[at] = bytes[at] as number
        known.known[at] = 1
      }
    }
  }

  /** Each frame of which a byte has left is in the journal of its object. */
  async #assertJournalAhead(): Promise<void> {
    if (!this.key) return
    const journals = new Map((await listJournals(this.journals)).map((one) => [one.id, one.contents]))
    for (const { key, frame, nonce, left } of this.#frames()) {
      const contents = journals.get(key.slice(key.indexOf('/') + 1, key.indexOf('.tar')))
      // That of an object that is complete is gone.
      if (!contents || !left.includes(1)) continue
      assert.ok(frame < contents.frames, `frame ${frame} of ${key} has left and is not in its journal`)
      assert.equal(contents.seals.toString('hex', frame * 28, frame * 28 + NONCE), nonce)
    }
  }

  /** The frames of each run, with what is known of them, and which of that left. */
  *#frames() {
    const runs = Map.groupBy(seenPieces(this.root), ({ key, run }) => `${key} ${run}`)
    for (const pieces of runs.values()) {
      const frames = new Map<number, { bytes: Buffer; left: Buffer; known: Buffer }>()
      for (const { offset, bytes, sent } of pieces) {
        for (let at = 0; at < bytes.length; ) {
          const place = offset + at - HEADER_BYTES
          if (place < 0) {
            at += -place
            continue
          }
          const index = Math.floor(place / FRAME)
          const from = place - index * FRAME
          const length = Math.min(FRAME - from, bytes.length - at)
          const frame = frames.get(index) ?? {
            bytes: Buffer.alloc(FRAME),
            left: Buffer.alloc(FRAME),
            known: Buffer.alloc(FRAME),
          }
          frames.set(index, frame)
          bytes.copy(frame.bytes, from, at, at + length)
          frame.known.fill(1, from, from + length)
          if (sent) frame.left.fill(1, from, from + length)
          at += length
        }
      }
      const { key } = pieces[0] as { key: string }
      for (const [frame, { bytes, left, known }] of frames) {
        // The part with its beginning may have been on its way yet.
        if (known.subarray(0, NONCE).includes(0)) continue
        yield { key, frame, nonce: bytes.toString('hex', 0, NONCE), bytes, left }
      }
    }
  }
}
