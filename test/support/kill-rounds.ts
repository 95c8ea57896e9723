import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type BackupError,
  type Backups,
  decideRetention,
  type LeaseOptions,
  openBackups,
  type RestoreOptions,
  type RetentionPolicy,
} from '../../lib/index.ts'
import { idTime } from '../../lib/names.ts'
import { agedStore, impatientClock } from './aged-store.ts'
import { type Counts, KINDS, type KillPlace, type Kind } from './kill-place.ts'
import { type Moment, pickMoment, type ServiceDone, type ServiceWork, stageOf } from './kill-schedule.ts'
import { type Random, seededRandom } from './random.ts'
import { DAY_MS, HOUR_MS, keysIn } from './retention.ts'
import { diffTrees } from './tree.ts'

const KEY = Buffer.alloc(32, 3)
const POLICY: RetentionPolicy = { keepLast: 2 }
/** What a reader or a prune that died has marked counts for so long at most. */
const MARKS_MS = 11 * 60_000
const ATTEMPTS_MAX = 20
/** Of the rounds; in the others what is left stays for the next ones. */
const CLEANED_SHARE = 1 / 3
/** Of the rounds; in the others only snapshots that are new, or that were to be removed, are restored again. */
const RESTORED_SHARE = 1 / 4

/** One server in a store, at which one run after the other is killed. */
export class KillRounds {
  readonly #place: KillPlace
  readonly #server: string
  readonly #random: Random
  readonly #backups: Backups
  readonly #folder: string
  /** Which world each complete snapshot is of. */
  readonly #known = new Map<string, string>()
  readonly #measured: Map<string, Record<string, number>>
  /** Which bytes, by the store's name of them, were restored and compared. */
  readonly #compared = new Map<string, string>()
  /** Unfinished ones that were seen in an earlier round. */
  readonly #left = new Set<string>()
  readonly counts: Counts
  #round = 0

  private constructor(
    place: KillPlace,
    server: string,
    seed: string,
    shared: KillRounds | undefined,
    backups: Backups,
  ) {
    this.#place = place
    this.#server = server
    this.#random = seededRandom(seed, 'kills', server)
    this.#backups = backups
    this.#folder = join(place.folder, server)
    this.#measured = shared ? shared.#measured : new Map()
    this.counts = shared ? shared.counts : new Map()
  }

  /** @param shared another server's, whose measured runs are taken, and whose counts go on. */
  static async open(place: KillPlace, server: string, seed: string, shared?: KillRounds): Promise<KillRounds> {
    const backups = await openBackups({ storage: place.storage, server, key: KEY })
    const rounds = new KillRounds(place, server, seed, shared, backups)
    await mkdir(rounds.#folder)
    if (shared) return rounds
    for (const kind of KINDS) await rounds.#measure(kind, false)
    await rounds.#measure('restore', true)
    return rounds
  }

  /**
   * Kills one run and looks at what it has left; then the same is run again, to its end.
   * @param moment a random one when left out.
   * @param overwrite whether a restore finds something at its target; by chance when left out.
   * @returns what the killed run had come to.
   */
  async kill(kind: Kind, moment?: Moment, overwrite?: boolean): Promise<string> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const found = await this.#killOnce(kind, moment, kind === 'restore' && (overwrite ?? this.#random.chance(0.5)))
      if (found) return found
      // A call that this run did not make: fewer marks to remove, for one.
      this.#count('runs that ended before their moment')
    }
    assert.fail(`${kind} was not killed at ${JSON.stringify(moment)} in ${ATTEMPTS_MAX} runs`)
  }

  async #killOnce(kind: Kind, given: Moment | undefined, overwrite: boolean): Promise<string | undefined> {
    const { work, place, before } = await this.#prepare(kind, overwrite)
    const moment = given ?? pickMoment(this.#random, this.#measured.get(`${kind} ${overwrite}`) ?? {})
    const what = `${kind} ${this.#server} round ${this.#round}, killed ${moment.when} ${moment.at} ${moment.nth}`
    try {
      const done = await this.#run(work, place, moment)
      const found = await this.#look(work, before, what)
      if (done) {
        await this.#clean(what)
        return undefined
      }
      this.#count(`killed at ${stageOf(moment.at)}`)
      this.#count(`killed ${moment.when}`)
      this.#count(`${kind}: ${found}`)
      await this.#again(work, what)
      if (this.#random.chance(CLEANED_SHARE)) await this.#clean(what)
      return found
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error })
    } finally {
      await rm(place, { recursive: true, force: true })
    }
  }

  /** Whatever has been left is gone a day later, once the last run was clean. */
  async end(): Promise<void> {
    await this.#clean(`${this.#server} at the end`)
  }

  /** The snapshots that a run of this kind needs, and what it is to do. */
  async #prepare(kind: Kind, overwrite: boolean): Promise<{ work: ServiceWork; place: string; before: string[] }> {
    this.#round += 1
    const place = join(this.#folder, `round-${this.#round}`)
    await mkdir(place)
    const wanted = { backup: 2, prune: 4, restore: 1 }[kind]
    while (this.#known.size < wanted) await this.#create()
    const before = (await this.#list()).complete
    assert.deepEqual(before, [...this.#known.keys()].sort(), 'the snapshots that were there before the round')
    const { create: options, worlds } = this.#place
    if (kind === 'prune') return { work: { kind }, place, before }
    if (kind === 'backup') return { work: { kind, source: this.#next(), options }, place, before }
    const target = join(place, 'target')
    const other = worlds.find((world) => world !== this.#known.get(before.at(-1) as string)) as string
    // Node's own cp keeps no times of folders.
    if (overwrite) execFileSync('cp', ['-a', other, target])
    return { work: { kind, target, options: { overwrite, checkpointBytes: 300_000 } }, place, before }
  }

  async #run(work: ServiceWork, place: string, moment?: Moment): Promise<ServiceDone | null> {
    const stateDir = join(this.#folder, 'state')
    return this.#place.run({
      server: this.#server,
      key: KEY.toString('hex'),
      work,
      policy: POLICY,
      stateDir,
      place,
      ...(moment ? { moment } : {}),
    })
  }

  async #measure(kind: Kind, overwrite: boolean): Promise<void> {
    const { work, place, before } = await this.#prepare(kind, overwrite)
    const done = await this.#run(work, place)
    assert.ok(done, 'nobody killed it')
    this.#measured.set(`${kind} ${overwrite}`, done.calls)
    await this.#look(work, before, `${kind} that was not killed`)
    await rm(place, { recursive: true })
  }

  /** Looks at what a run has left, and holds it to what it may have left. */
  async #look(work: ServiceWork, before: readonly string[], what: string): Promise<string> {
    const { complete, unfinished } = await this.#list()
    const fresh = complete.filter((id) => !before.includes(id))
    const gone = before.filter((id) => !complete.includes(id))
    const condemned = this.#condemned([...before, ...fresh])
    assert.ok(fresh.length <= (work.kind === 'backup' ? 1 : 0), `${what}: ${fresh} came from nowhere`)
    if (work.kind === 'restore') assert.deepEqual(gone, [], `${what}: snapshots are gone`)
    for (const id of gone) assert.ok(condemned.includes(id), `${what}: ${id} is gone, which the policy keeps`)
    for (const id of gone) this.#known.delete(id)
    if (work.kind === 'backup') for (const id of fresh) this.#known.set(id, work.source)
    const all = this.#random.chance(RESTORED_SHARE)
    for (const { id, version } of (await this.#backups.list()).filter((one) => one.complete)) {
      // The same bytes as when they were restored, and nobody was to remove them.
      if (!all && !condemned.includes(id) && version !== undefined && this.#compared.get(id) === version) continue
      await this.#restorable(id, condemned.includes(id))
      if (version !== undefined) this.#compared.set(id, version)
    }
    for (const id of unfinished) await this.#notRestorable(id)
    if (work.kind === 'prune') return `${gone.length} removed`
    if (work.kind === 'backup') {
      const ours = unfinished.some((id) => !this.#left.has(id))
      for (const id of unfinished) this.#left.add(id)
      if (fresh.length === 0) return ours ? 'unfinished' : 'absent'
      return gone.length === 0 ? 'complete' : 'complete, and pruned after it'
    }
    return this.#lookAtTarget(work.target, work.options, complete)
  }

  async #lookAtTarget(target: string, { overwrite }: RestoreOptions, complete: readonly string[]): Promise<string> {
    const [newest, other] = this.#newestAndOther(complete)
    const place = await readdir(join(target, '..'))
    const staged = place.some((name) => name !== 'target') ? ', staged' : ''
    if (!place.includes('target')) {
      // Between its two renames an overwrite has nothing there, for a moment: both are in the staging folder.
      if (overwrite) assert.ok(staged, 'the target is gone')
      return `absent${staged}`
    }
    if (overwrite && diffTrees(target, other).length === 0) return `as it was${staged}`
    assert.deepEqual(diffTrees(target, newest).slice(0, 5), [], 'the target is neither the old nor the new')
    return `whole${staged}`
  }

  /** The same command once more, as its user would give it: it is to succeed. */
  async #again(work: ServiceWork, what: string): Promise<void> {
    if (work.kind === 'restore') {
      const [newest] = this.#newestAndOther((await this.#list()).complete)
      const place = join(work.target, '..')
      const overwrite = work.options.overwrite || (await readdir(place)).includes('target')
      const { resumed } = await this.#backups.restore('latest', work.target, { ...work.options, overwrite })
      this.#count(resumed ? 'restores gone on with' : 'restores begun anew')
      assert.deepEqual(diffTrees(work.target, newest), [], what)
      assert.deepEqual(await readdir(place), ['target'], `${what}: something is left beside the target`)
      return
    }
    if (work.kind === 'backup') {
      const { id } = await this.#underLease(async (lease) =>
        this.#backups.create(work.source, { ...this.#place.create, lease }),
      )
      this.#known.set(id, work.source)
      await this.#restorable(id, false)
    }
    await this.#prune()
  }

  /** Runs what needs the lease; the killed run may hold it. */
  async #underLease<T>(run: (lease: LeaseOptions) => Promise<T>): Promise<T> {
    try {
      return await run({ clock: impatientClock() })
    } catch (error) {
      if ((error as BackupError).code !== 'LEASE_HELD') throw error
      this.#count('next runs refused, as the lease looked held')
    }
    if (this.#random.chance(0.5)) {
      this.#count('leases stolen (--steal)')
      return run({ steal: true })
    }
    // A night later its holder gives no sign of life: that is watched, and it is taken over without an option.
    this.#count('leases taken over when they had expired')
    return run({ clock: impatientClock(DAY_MS) })
  }

  async #prune(): Promise<void> {
    await this.#underLease(async (lease) => {
      const report = await this.#backups.prune(POLICY, { stateDir: join(this.#folder, 'state'), lease })
      assert.deepEqual(report.problems, [])
      for (const { outcome, snapshot } of report.snapshots) {
        assert.ok(['kept', 'removed', 'in-use'].includes(outcome), `${snapshot.id}: ${outcome}`)
        if (outcome === 'removed') this.#known.delete(snapshot.id)
        if (outcome === 'in-use') this.#count('snapshots kept for a reader that had been killed')
      }
      // It goes on without the lease, and sweeps nothing. Here it is run once more.
      const refused = report.notes.find((note) => note.includes('--steal'))
      if (refused) throw Object.assign(new Error(refused), { code: 'LEASE_HELD' })
    })
    assert.deepEqual((await this.#list()).complete, [...this.#known.keys()].sort())
  }

  /** What the prunes of two nights leave: the snapshots of the policy, and nothing else at all. */
  async #clean(what: string): Promise<void> {
    const { storage } = this.#place
    const prefix = `${this.#server}/`
    this.#count('uploads swept', await this.#place.pending(this.#server))
    this.#count('unfinished snapshots swept', (await this.#list()).unfinished.length)
    const aged = await openBackups({
      storage: await agedStore(storage, prefix, 2 * DAY_MS),
      server: this.#server,
      key: KEY,
    })
    if (this.#known.size === 0) await this.#create()
    for (const hours of [0, 25]) {
      const now = new Date(Date.now() + hours * HOUR_MS)
      const lease = { clock: impatientClock(DAY_MS) }
      const { problems } = await aged.prune(POLICY, { stateDir: join(this.#folder, 'state'), now, lease })
      assert.deepEqual(problems, [], what)
    }
    const snapshots = await this.#backups.list()
    for (const id of this.#known.keys()) if (!snapshots.some((one) => one.id === id)) this.#known.delete(id)
    assert.deepEqual(
      snapshots.map(({ id }) => id),
      [...this.#known.keys()].sort(),
      what,
    )
    assert.ok(snapshots.length <= 2 && snapshots.length > 0, `${what}: ${snapshots.length} snapshots are left`)
    const expected = snapshots.flatMap(({ key }) => [key, `${key}.sha256`]).sort()
    assert.deepEqual(await keysIn(storage, prefix), expected, `${what}: something is left in the store`)
    assert.equal(await this.#place.pending(this.#server), 0, `${what}: uploads are left in the store`)
    this.#left.clear()
  }

  async #create(): Promise<void> {
    const source = this.#next()
    const { id } = await this.#backups.create(source, this.#place.create)
    this.#known.set(id, source)
  }

  /** The two worlds in turn. */
  #next(): string {
    const newest = this.#known.get([...this.#known.keys()].sort().at(-1) ?? '')
    return this.#place.worlds.find((world) => world !== newest) as string
  }

  #newestAndOther(complete: readonly string[]): [string, string] {
    const newest = this.#known.get(complete.at(-1) as string) as string
    return [newest, this.#place.worlds.find((world) => world !== newest) as string]
  }

  async #list(): Promise<{ complete: string[]; unfinished: string[] }> {
    const snapshots = await this.#backups.list()
    const ids = (state: boolean) => snapshots.filter(({ complete }) => complete === state).map(({ id }) => id)
    return { complete: ids(true), unfinished: ids(false) }
  }

  #condemned(ids: readonly string[]): string[] {
    const snapshots = ids.map((id) => ({ id, server: this.#server, created: idTime(id) as Date, complete: true }))
    const decisions = decideRetention(snapshots, POLICY, new Date())
    return decisions.filter(({ action }) => action === 'remove').map(({ snapshot }) => snapshot.id)
  }

  /** @param condemned whether a prune that was killed may have marked it as being removed. */
  async #restorable(id: string, condemned: boolean): Promise<void> {
    const target = join(this.#folder, 'restored')
    const restore = (backups: Backups) => backups.restore(id, target)
    try {
      await restore(this.#backups)
    } catch (error) {
      if (!(condemned && (error as BackupError).code === 'IN_USE')) throw error
      this.#count('reads refused within ten minutes of a killed prune')
      const later = await agedStore(this.#place.storage, `${this.#server}/`, MARKS_MS)
      await restore(await openBackups({ storage: later, server: this.#server, key: KEY }))
    }
    assert.deepEqual(
      diffTrees(target, this.#known.get(id) as string).slice(0, 5),
      [],
      `${id} is not what was backed up`,
    )
    await rm(target, { recursive: true })
    this.#count('restores compared byte for byte')
  }

  async #notRestorable(id: string): Promise<void> {
    const target = join(this.#folder, 'unfinished')
    await assert.rejects(this.#backups.restore(id, target), { code: 'NO_SNAPSHOT' })
    assert.ok(!(await readdir(this.#folder)).includes('unfinished'), `${id} is unfinished, and was restored`)
    this.#count('unfinished ones refused')
  }

  #count(name: string, times = 1): void {
    if (times > 0) this.counts.set(name, (this.counts.get(name) ?? 0) + times)
  }
}

/**
 * Kills so many runs at random moments, backups, prunes and restores in turn, and prints what came of them.
 * @param servers how many servers are at work at once.
 */
export async function killAtRandom(place: KillPlace, kills: number, seed: string, servers: number): Promise<void> {
  const first = await KillRounds.open(place, 'server-0', seed)
  const others = Array.from({ length: servers - 1 }, (_, at) => KillRounds.open(place, `server-${at + 1}`, seed, first))
  const all = [first, ...(await Promise.all(others))]
  await Promise.all(
    all.map(async (rounds, at) => {
      for (let kill = at; kill < kills; kill += servers) await rounds.kill(KINDS[kill % KINDS.length] as Kind)
      await rounds.end()
    }),
  )
  const said = [...first.counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([what, times]) => `${what} ${times}`)
  console.log(`${place.name}, ${kills} kills, seed ${seed}: ${said.join('; ')}`)
  for (const when of ['before', 'within', 'after'])
    assert.ok(first.counts.get(`killed ${when}`), `none was killed ${when}`)
}
