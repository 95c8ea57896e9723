import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { openStorage } from '../../adapters/open.ts'
import type { Storage } from '../../adapters/storage.ts'
import { openBackups } from '../../lib/index.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { type CliOptions, type CliResult, millrace, scratch, startMillrace } from './cli.ts'
import { type ArrivedRequest, type Fault, type FaultProxy, openFaultProxy } from './fault-proxy.ts'
import { sample } from './streams.ts'

/** More than one part of an upload. */
const CONTENT_BYTES = 9_000_000

/** A store with snapshots in it, behind a proxy that can hold a request for ever. */
export interface Scene {
  folder: string
  world: string
  /** Through the proxy. */
  url: string
  proxy: FaultProxy
  /** What is in the store, past the proxy. */
  storage: Storage
  fake: FakeB2
  /** Ids of a complete snapshot that is not the newest, and of one without a companion. */
  old: string
  unfinished: string
  options: CliOptions
}

/** Sets the scene: a world, three snapshots, the first without its companion. */
export async function setScene(t: TestContext): Promise<Scene> {
  const folder = await scratch(t)
  const world = join(folder, 'world')
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  await writeFile(join(world, 'region.mca'), randomBytes(CONTENT_BYTES))
  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  const proxy = await openFaultProxy(fake.origin, { hashBodies: false })
  t.after(() => proxy.close())
  const key = randomBytes(32)
  await writeFile(join(folder, 'key'), key)
  const state = join(folder, 'state')
  const place = { provider: 'backblaze-b2', keyId, applicationKey, bucket: bucketName } as const
  const storage = await openStorage({ ...place, endpoint: fake.origin })
  t.after(() => storage.close())
  const backups = await openBackups({ storage, server: 'world', key })
  const ids: string[] = []
  for (let i = 0; i < 3; i += 1) ids.push((await backups.create(world, { lease: false })).id)
  const [unfinished, old] = ids as [string, string, string]
  const { key: object } = (await backups.list()).find(({ id }) => id === unfinished) as { key: string }
  await storage.delete(`${object}.sha256`)
  const env = {
    B2_APPLICATION_KEY_ID: keyId,
    B2_APPLICATION_KEY: applicationKey,
    MILLRACE_PASSWORD: undefined,
    MILLRACE_STATE_DIR: state,
  }
  const url = `b2://${bucketName}?endpoint=${proxy.endpoint}`
  return { folder, world, url, proxy, storage, fake, old, unfinished, options: { env, cwd: folder } }
}

export interface Held {
  args(scene: Scene): string[]
  /** Which request is held, the first such, and how; without it `until` says when. */
  hold?: { fault: Fault; at: (request: ArrivedRequest) => boolean }
  /** Which call of B2's is held, instead. */
  call?: (name: string, body: Record<string, unknown>) => boolean
  /** Whether the next run is worth looking at: it writes something. */
  writes?: boolean
  /** Given to standard input, which stays open. */
  input?: Buffer | undefined
  /** What the scene's folder has of its own when it is held. */
  until?: (scene: Scene) => Promise<boolean>
}

const from = ({ url }: Scene) => ['--from', url, '--server', 'world', '--key-file', 'key']
/** A read of the object's content: the header and the end are read before, by their own ranges. */
const isContentRead = ({ url, headers }: ArrivedRequest) =>
  url.includes('/b2_download_file_by_id') && /^bytes=(?:0-$|64-)/.test(headers.range ?? '')
const isCall = (name: string) => (request: { url: string }) => request.url.includes(`/${name}`)
const STALL: Fault = { kind: 'stall-reply', afterBytes: 1_000_000 }
const SWALLOW: Fault = { kind: 'swallow' }
const READ = { fault: STALL, at: isContentRead }

/** Each command, held in the middle of its work. */
export const HELD: Record<string, Held> = {
  backup: {
    args: ({ world, url }) => ['backup', world, '--to', url, '--server', 'world', '--key-file', 'key'],
    hold: { fault: SWALLOW, at: isCall('b2_upload_part/') },
    writes: true,
  },
  restore: {
    args: (scene) => ['restore', 'latest', ...from(scene), '--target', join(scene.folder, 'restored')],
    hold: READ,
    writes: true,
  },
  verify: { args: (scene) => ['verify', 'latest', ...from(scene)], hold: READ },
  cat: { args: (scene) => ['cat', 'latest', 'region.mca', ...from(scene)], hold: READ },
  adopt: { args: (scene) => ['adopt', scene.unfinished, ...from(scene)], hold: READ, writes: true },
  prune: {
    args: ({ url }) => ['prune', '--from', url, '--server', 'world', '--keep-last', '1'],
    call: (name, { fileName }) => name === 'b2_delete_file_version' && String(fileName).endsWith('.mlr'),
    writes: true,
  },
  list: {
    args: ({ url }) => ['list', '--from', url],
    hold: { fault: SWALLOW, at: isCall('b2_list_file_names') },
  },
  check: {
    args: ({ url }) => ['check', '--to', url],
    hold: { fault: SWALLOW, at: ({ method, url }) => method === 'GET' && url.includes('canary') },
  },
  bench: {
    args: ({ world, url }) => ['bench', world, '--to', url, '--server', 'world', '--size', '8MiB', '--seconds', '0.05'],
    // Its scratch object is there by then.
    hold: { fault: SWALLOW, at: isContentRead },
  },
  encrypt: {
    args: () => ['encrypt', '--key-file', 'key', '-o', 'sealed'],
    input: sample(3_000_000),
    until: ({ folder }) => hasPartial(folder, 'sealed'),
    writes: true,
  },
  decrypt: {
    args: () => ['decrypt', '--key-file', 'key', '-o', 'plain'],
    until: ({ folder }) => hasPartial(folder, 'plain'),
    writes: true,
  },
}

async function hasPartial(folder: string, name: string): Promise<boolean> {
  return (await readdir(folder)).some((one) => one.startsWith(`${name}.millrace-`))
}

/** Everything in the store, and every upload that was begun. */
async function storeOf({ storage, fake }: Scene): Promise<string[]> {
  const keys = (await Array.fromAsync(storage.list(''))).map(({ key }) => key)
  return [...keys.sort(), ...fake.unfinished.map(({ name }) => `unfinished: ${name}`)]
}

async function folderOf({ folder }: Scene): Promise<string[]> {
  // Notes in the state folder are no leftovers.
  return (await readdir(folder, { recursive: true })).filter((name) => !name.startsWith('state')).sort()
}

/** Starts a command, and waits until it is in the middle of its work. */
async function startHeld(scene: Scene, name: string, held: Held) {
  const { proxy, fake, options } = scene
  let arrived: Promise<void> = Promise.resolve()
  if (held.hold) {
    const { fault, at } = held.hold
    arrived = proxy.arrival(at)
    proxy.inject(fault, at)
  }
  const { call } = held
  if (call) {
    arrived = new Promise((resolve) => {
      fake.beforeCall = (name, body) => {
        if (!call(name, body)) return undefined
        resolve()
        return new Promise(() => {})
      }
    })
  }
  const run = startMillrace(held.args(scene), { ...options, openInput: true })
  let isOver = false
  const ended = run.result.finally(() => {
    isOver = true
  })
  ended.catch(() => {})
  const input = held.input ?? (name === 'decrypt' ? await sealed(scene) : undefined)
  if (input) run.child.stdin.write(input)
  const early = ended.then(({ code, stderr }) =>
    assert.fail(`${name} ended with ${code} before it was held: ${stderr}`),
  )
  await Promise.race([arrived, early])
  while (!isOver && held.until && !(await held.until(scene))) await delay(20)
  if (isOver) await early
  return run
}

/** Some whole frames and a half one. */
async function sealed({ folder, options }: Scene): Promise<Buffer> {
  const { stdout } = await millrace(['encrypt', '--key-file', 'key'], {
    ...options,
    input: sample(3_000_000),
    cwd: folder,
  })
  return stdout.subarray(0, 2_500_000)
}

/** The same command, with nothing in its way. */
async function runAgain(scene: Scene, name: string, args: string[]): Promise<CliResult> {
  scene.fake.beforeCall = undefined
  const input = name === 'encrypt' ? sample(1000) : undefined
  const whole = name === 'decrypt' ? await wholeSealed(scene) : input
  const result = await millrace(args, { ...scene.options, ...(whole ? { input: whole } : {}) })
  assert.equal(result.code, 0, `${name}, again: ${result.stdout}${result.stderr}`)
  return result
}

async function wholeSealed({ options }: Scene): Promise<Buffer> {
  return (await millrace(['encrypt', '--key-file', 'key'], { ...options, input: sample(1000) })).stdout
}

/** A signal in the middle of a command: nothing of it is left, it says so, and the next run is clean. */
export async function stopHeld(scene: Scene, name: string, signal: 'SIGINT' | 'SIGTERM'): Promise<void> {
  const held = HELD[name] as Held
  const before = { store: await storeOf(scene), folder: await folderOf(scene) }
  const { child, result } = await startHeld(scene, name, held)
  child.kill(signal)
  const { code, stderr, stdout } = await result
  assert.equal(code, signal === 'SIGINT' ? 130 : 143, `${name}: ${stderr}`)
  assert.match(stderr, new RegExp(`millrace: ${signal}: cleaning up; once more to leave at once`))
  assert.match(stderr, /Interrupted\. Nothing unfinished was left behind\.\n$/, `${name}: ${stdout}${stderr}`)
  assert.doesNotMatch(stderr, /^\s+at /m)
  assert.deepEqual(await storeOf(scene), before.store, name)
  assert.deepEqual(await folderOf(scene), before.folder, name)
  if (held.writes) await runAgain(scene, name, held.args(scene))
}

/** A second signal is not kept waiting by what the first one has to clean up. */
export async function stopTwice(scene: Scene, name: string): Promise<void> {
  const held = HELD[name] as Held
  // What cleans up is held as well, so that the second signal has something to cut short.
  const { child, result } = await startHeld(scene, name, held)
  scene.proxy.follow(() => SWALLOW)
  const ended = result.catch((error) => error)
  child.kill('SIGINT')
  let said = ''
  for await (const chunk of child.stderr) {
    said += chunk
    if (said.includes('once more')) break
  }
  // At once, it would pass for the first one that came twice.
  await delay(300)
  child.kill('SIGTERM')
  const { code } = await ended
  assert.equal(code, 143, name)
  scene.proxy.follow(undefined)
}

/** SIGKILL: what it leaves is in nobody's way, but a lease, which lives on until it is taken. */
export async function killHeld(scene: Scene, name: string): Promise<void> {
  const held = HELD[name] as Held
  const { child, result } = await startHeld(scene, name, held)
  child.kill('SIGKILL')
  await result
  const { storage, folder } = scene
  const complete = await openBackups({ storage, server: 'world', encryption: false })
  assert.equal((await complete.list()).filter((one) => one.complete).length, 2, `${name}: nothing is listed too much`)
  if (name === 'restore') assert.ok(!existsSync(join(folder, 'restored')))
  const args = held.args(scene)
  // A lease that somebody died with looks alive for ten minutes.
  if (name === 'backup') {
    const refused = await refusedRun(scene, args)
    assert.match(refused.stderr, /--steal/)
    args.push('--steal')
  }
  await runAgain(scene, name, args)
  if (name === 'restore') {
    execFileSync('diff', ['-r', scene.world, join(folder, 'restored')])
    assert.ok(!(await readdir(folder)).some((one) => one.includes('millrace-')), 'what the killed run left is gone')
    await rm(join(folder, 'restored'), { recursive: true })
  }
  for (const file of ['sealed', 'plain']) {
    if (existsSync(join(folder, file))) assert.ok((await readFile(join(folder, file))).length > 0)
  }
}

async function refusedRun(scene: Scene, args: string[]): Promise<CliResult> {
  const result = await millrace(args, scene.options)
  assert.equal(result.code, 5, result.stderr)
  return result
}
