import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, open, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { openStorage, type Storage } from '../../adapters/index.ts'
import { seededBytes } from '../../bench/world.ts'
import { HEADER_BYTES } from '../../transforms/index.ts'
import { millrace, PASSWORD, startMillrace } from './cli.ts'
import { type CountingProxy, openCountingProxy } from './counting-proxy.ts'
import { CRASH_PLACES, type CrashPlace } from './crash-places.ts'
import { type Random, seededRandom } from './random.ts'
import { independentReader, NO_READER } from './tools.ts'
import { diffTrees } from './tree.ts'

const MiB = 1024 * 1024
const BYTES = Number(process.env.MILLRACE_CRASH_BYTES ?? 4096 * MiB)
const KILLS = Number(process.env.MILLRACE_CRASH_KILLS ?? 30)
/** With a world that changes most objects are begun anew. */
const KILLS_OF_CHANGED = Math.ceil(KILLS / 3)
const NAMES = Object.keys(CRASH_PLACES)
const PLACES = process.env.MILLRACE_CRASH_PLACES?.split(',') ?? NAMES
const SEED = process.env.MILLRACE_SEED ?? 'crashes'
const SERVER = 'world'
const COMPANION = '.sha256'
const FRAME_BYTES = MiB + 28
const NONCE_BYTES = 12
const REGION_BYTES = 64 * MiB
const SMALL_FILES = 1000
/** Parts that a kill may cost. */
const PARTS_A_KILL = 2
/** Of an object: heads of requests, listings, leases, and what signing in takes. */
const TALK_SHARE = 0.002
const REFUSED_EXIT = 5
const STRICT = '--resume=strict'
const NEVER_MS = 2 ** 31 - 1

for (const name of PLACES)
  if (!NAMES.includes(name)) throw new Error(`No place is called ${name}: ${NAMES.join(', ')}.`)

let folder: string
let world: string
let passwordFile: string

before(async () => {
  folder = await mkdtemp(join(process.env.MILLRACE_CRASH_DIR ?? tmpdir(), 'millrace-crashes-'))
  world = join(folder, SERVER)
  passwordFile = join(folder, 'password')
  await writeFile(passwordFile, PASSWORD)
  await mkdir(join(world, 'players'), { recursive: true })
  const bytes = seededBytes(SEED)
  for (let left = BYTES, i = 0; left > 0; left -= REGION_BYTES, i += 1) {
    await writeFile(join(world, `r.${i}.0.mca`), bytes(Math.min(left, REGION_BYTES)))
  }
  for (let i = 0; i < SMALL_FILES; i += 1) await writeFile(join(world, 'players', `${i}.dat`), bytes(4000))
})

after(() => rm(folder, { recursive: true, force: true }))

/** Writes a region of the world anew. */
async function writeRegion(i: number, seed: string): Promise<void> {
  const size = Math.min(REGION_BYTES, BYTES - i * REGION_BYTES)
  await writeFile(join(world, `r.${i}.0.mca`), seededBytes(`${SEED} ${seed}`)(size))
}

/** One store, and the backups to it that are killed. */
class Crashes {
  readonly storage: Storage
  readonly #place: CrashPlace
  readonly #proxy: CountingProxy
  readonly #journals: string
  private constructor(place: CrashPlace, proxy: CountingProxy, storage: Storage, journals: string) {
    this.#place = place
    this.#proxy = proxy
    this.storage = storage
    this.#journals = journals
  }

  static async open(place: CrashPlace): Promise<Crashes> {
    Object.assign(process.env, place.env)
    const storage = await openStorage(place.url(place.origin))
    const journals = await mkdtemp(join(folder, 'journals-'))
    return new Crashes(place, await openCountingProxy(place.origin), storage, journals)
  }

  /** Bytes that all runs have sent. */
  get sent(): number {
    return this.#proxy.sent
  }

  /**
   * Runs a backup, as a user does.
   * @param killAfterMs when it is killed; undefined: it is not.
   * @returns what it said of the snapshot; null when it was killed, or with `--resume=strict` refused.
   */
  async run(killAfterMs?: number, resume = '--resume'): Promise<Snapshot | null> {
    const args = ['backup', world, '--to', this.#place.url(this.#proxy.origin), '--journal', this.#journals]
    const { child, result } = startMillrace([...args, resume, '--json'], { env: this.#place.env })
    let isKilled = false
    const timer = setTimeout(() => {
      isKilled = child.kill('SIGKILL')
    }, killAfterMs ?? NEVER_MS)
    const { code, stderr, events } = await result
    clearTimeout(timer)
    await this.#proxy.idle()
    if (code === null && isKilled) return null
    if (code === REFUSED_EXIT && resume === STRICT) {
      assert.match(stderr, /cannot be taken up\./)
      return null
    }
    assert.equal(code, 0, stderr)
    return events().find(({ event }) => event === 'snapshot') as unknown as Snapshot
  }

  /** What is in the store, but for what a service keeps there. */
  async #keys(): Promise<string[]> {
    const keys: string[] = []
    for await (const { key } of this.storage.list('')) keys.push(key)
    return keys.sort()
  }

  /**
   * That the independent reader accepts a snapshot, and its companion is right.
   * @returns SHA-256 of the archive in it.
   */
  async check({ id, storedBytes }: Snapshot): Promise<string> {
    const object = (await this.#keys()).find((key) => key.includes(id) && !key.endsWith(COMPANION)) as string
    const file = join(folder, 'object')
    const hash = createHash('sha256')
    let bytes = 0
    const reading = this.storage.createReadStream(object)
    reading.on('data', (chunk: Buffer) => {
      hash.update(chunk)
      bytes += chunk.length
    })
    await pipeline(reading, createWriteStream(file))
    assert.equal(bytes, storedBytes)
    const companion = await text(this.storage.createReadStream(object + COMPANION))
    assert.match(companion, new RegExp(`^${hash.digest('hex')} `))
    await assertNoncesOnce(file)
    const names = ['--password-file', passwordFile, '--server', SERVER, '--id', id]
    const { code, stdout, stderr } = independentReader(['judge', file, ...names])
    assert.equal(code, 0, stdout.toString() + stderr)
    await rm(file)
    return JSON.parse(stdout.toString()).layer2.sha256
  }

  /** That the snapshot is all that there is, here and at the store. */
  async assertTidy({ id }: Snapshot): Promise<void> {
    const [object = '', companion, ...more] = await this.#keys()
    assert.ok(object.includes(id))
    assert.deepEqual([companion, more], [object + COMPANION, []])
    assert.equal((await this.#place.pending()) ?? 0, 0, 'an upload is left')
    assert.deepEqual(await readdir(join(this.#journals, SERVER)), [], 'a journal is left')
  }

  /** @returns the snapshot, should a run that was killed have come to its end. */
  async complete(): Promise<Snapshot | undefined> {
    const companion = (await this.#keys()).find((key) => key.endsWith(COMPANION))
    if (companion === undefined) return undefined
    const { key, size: storedBytes } = await this.storage.stat(companion.slice(0, -COMPANION.length))
    return { id: key.slice(key.indexOf('/') + 1, key.indexOf('.tar')), storedBytes }
  }

  /** That what is restored is the world as it is now. */
  async assertRestores({ id }: Snapshot): Promise<void> {
    const target = join(folder, 'restored')
    const from = ['--from', this.#place.url(this.#place.origin), '--server', SERVER]
    const { code, stderr } = await millrace(['restore', id, ...from, '--target', target], { env: this.#place.env })
    assert.equal(code, 0, stderr)
    assert.deepEqual(diffTrees(world, target), [])
    await rm(target, { recursive: true })
  }

  async clear(): Promise<void> {
    const keys = (await this.#keys()).filter((key) => !key.includes('/.lease/'))
    for (const key of keys) await (this.storage.erase ?? this.storage.delete).call(this.storage, key)
  }

  async close(): Promise<void> {
    await this.#proxy.close()
    await this.storage.close()
    await this.#place.close()
  }
}

interface Snapshot {
  id: string
  storedBytes: number
}

async function assertNoncesOnce(file: string): Promise<void> {
  const handle = await open(file)
  try {
    const { size } = await handle.stat()
    const nonces = new Set<string>()
    let frames = 0
    for (let at = HEADER_BYTES; at < size; at += FRAME_BYTES) {
      const nonce = Buffer.alloc(NONCE_BYTES)
      await handle.read(nonce, 0, NONCE_BYTES, at)
      nonces.add(nonce.toString('hex'))
      frames += 1
    }
    assert.equal(nonces.size, frames, 'a nonce is there twice')
  } finally {
    await handle.close()
  }
}

/** What became of one object: the last run may have been killed when it had nothing left to do but to tidy up. */
interface Upload {
  made: Snapshot
  kills: number
  sentBytes: number
  isTidy: boolean
}

/** Kills backups of one object until it is done, or until all kills are made. */
async function upload(crashes: Crashes, random: Random, wholeMs: number, killsLeft: number): Promise<Upload> {
  const before = crashes.sent
  const ended = (made: Snapshot, kills: number, isTidy: boolean) => ({
    made,
    kills,
    sentBytes: crashes.sent - before,
    isTidy,
  })
  for (let kills = 0; ; kills += 1) {
    // A run that goes on is shorter: with moments spread evenly over a whole one, most objects would be killed once or twice.
    const made = await crashes.run(kills < killsLeft ? random.int(1 + random.int(wholeMs)) : undefined)
    if (made) return ended(made, kills, true)
    const killed = await crashes.complete()
    if (killed) return ended(killed, kills + 1, false)
  }
}

/**
 * Defines the tests of one store, unless MILLRACE_CRASH_PLACES names others. A file has one: what a fake keeps is GiB, and
 * goes when its process ends.
 */
export function testCrashes(name: keyof typeof CRASH_PLACES): void {
  if (!PLACES.includes(name)) return
  const openPlace = CRASH_PLACES[name]
  const what = `${name}: a backup of ${BYTES / MiB} MiB, killed ${KILLS} times at random moments`
  test(what, { skip: NO_READER }, async (t) => {
    t.diagnostic(`seed ${SEED}`)
    const random = seededRandom(SEED, name)
    const place = await openPlace()
    const crashes = await Crashes.open(place)
    t.after(() => crashes.close())
    const begun = performance.now()
    const undisturbed = await crashes.run()
    const wholeMs = performance.now() - begun
    assert.ok(undisturbed)
    const archive = await crashes.check(undisturbed)
    await crashes.assertTidy(undisturbed)
    const talk = crashes.sent - undisturbed.storedBytes
    t.diagnostic(`undisturbed: ${undisturbed.storedBytes} bytes in ${Math.round(wholeMs)} ms, ${talk} more on the wire`)
    assert.ok(talk <= undisturbed.storedBytes * TALK_SHARE)
    await crashes.clear()
    const counts = { kills: 0, objects: 0, objectBytes: 0, sentBytes: 0 }
    while (counts.kills < KILLS) {
      const { made, kills, sentBytes, isTidy } = await upload(crashes, random, wholeMs, KILLS - counts.kills)
      counts.kills += kills
      counts.objects += 1
      counts.objectBytes += made.storedBytes
      counts.sentBytes += sentBytes
      const parts = (sentBytes - made.storedBytes) / place.partBytes
      const each = kills > 0 ? `, ${(parts / kills).toFixed(2)} a kill` : ''
      t.diagnostic(
        `${kills} kills: ${made.storedBytes} bytes, ${sentBytes} sent: ${parts.toFixed(2)} parts more${each}${isTidy ? '' : '; the last kill came when it was complete'}`,
      )
      assert.equal(await crashes.check(made), archive, 'it is not what was to be backed up')
      if (isTidy) await crashes.assertTidy(made)
      const allowed = made.storedBytes * (1 + TALK_SHARE) + kills * PARTS_A_KILL * place.partBytes
      assert.ok(sentBytes <= allowed, `${sentBytes} bytes were sent, and ${Math.round(allowed)} are allowed`)
      await crashes.clear()
    }
    const parts = (counts.sentBytes - counts.objectBytes) / place.partBytes
    t.diagnostic(
      `${JSON.stringify(counts)}: ${(parts / counts.kills).toFixed(2)} parts of ${place.partBytes} bytes a kill`,
    )
  })

  const changing = `${name}: the same, with the world changed between the runs`
  test(changing, { skip: NO_READER }, async (t) => {
    const random = seededRandom(SEED, changing)
    const crashes = await Crashes.open(await openPlace())
    t.after(() => crashes.close())
    const begun = performance.now()
    assert.ok(await crashes.run())
    const wholeMs = performance.now() - begun
    await crashes.clear()
    const counts = { kills: 0, changes: 0, 'strict runs': 0, objects: 0 }
    while (counts.kills < KILLS_OF_CHANGED) {
      const atMs = random.int(1 + random.int(wholeMs))
      const isStrict = random.chance(0.3)
      if (isStrict) counts['strict runs'] += 1
      let made = isStrict ? await crashes.run(undefined, STRICT) : await crashes.run(atMs)
      if (!isStrict && !made) counts.kills += 1
      if (!made && counts.kills >= KILLS_OF_CHANGED) made = await crashes.run()
      // A snapshot that is complete although its run was killed is of the world as it was: there is nothing to compare.
      if (made) {
        counts.objects += 1
        await crashes.check(made)
        await crashes.assertRestores(made)
        await crashes.clear()
      }
      if (random.chance(0.5)) {
        counts.changes += 1
        await writeRegion(random.int(Math.ceil(BYTES / REGION_BYTES)), `change ${counts.changes}`)
      }
    }
    t.diagnostic(JSON.stringify(counts))
  })
}
