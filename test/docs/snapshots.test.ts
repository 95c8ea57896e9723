// The hooks of docs/guides/snapshots.md: those of btrfs and of reflinks on real file systems, where this machine can mount
// some; those of ZFS and LVM with programs that only write down what they are asked for.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { FakeB2 } from '../fakes/b2.ts'
import { millrace, scratch, startMillrace } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { readDocument } from './markdown.ts'

const MiB = 1024 * 1024
const IMAGE_BYTES = 512 * MiB
const FILES = 6
const FILE_BYTES = 8 * MiB
const blocks = readDocument('docs/guides/snapshots.md').blocks

function script(name: string): string {
  const found = blocks.find(({ text }) => text.includes(`# A snapshot by ${name}.`))
  assert.ok(found, `the guide has no script for ${name}`)
  return found.text
}

const says = (command: string, ...args: string[]) => spawnSync(command, args, { encoding: 'utf8' })

/** For a test's `skip`. */
function cannotMount(kind: string): string | false {
  if (process.getuid?.() !== 0) return 'only root can mount'
  if (!existsSync('/dev/loop-control')) return 'there are no loop devices'
  if (!readFileSync('/proc/filesystems', 'utf8').includes(kind)) return `the kernel has no ${kind}`
  return says(`mkfs.${kind}`, '-V').error ? `mkfs.${kind} is not installed` : false
}

/** @returns a folder that is a file system of its own; undefined where root may not mount one either, as in a container. */
function mounted(t: TestContext, kind: string): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
  const [image, place] = [join(folder, 'image'), join(folder, 'place')]
  writeFileSync(image, '')
  truncateSync(image, IMAGE_BYTES)
  mkdirSync(place)
  execFileSync(`mkfs.${kind}`, ['-q', image])
  const { status } = says('mount', '-o', 'loop', image, place)
  t.after(() => {
    if (status === 0) execFileSync('umount', [place])
    rmSync(folder, { recursive: true })
  })
  return status === 0 ? place : undefined
}

function fill(world: string, seed: number): void {
  for (let i = 0; i < FILES; i += 1) writeFileSync(join(world, `r.${i}.0.mca`), seededBytes(FILE_BYTES, seed + i))
}

for (const [name, kind] of [
  ['btrfs', 'btrfs'],
  ['reflinks', 'xfs'],
] as const) {
  test(`the hook for ${name}: a backup that is killed goes on with its snapshot while the world changes`, {
    skip: cannotMount(kind),
  }, async (t) => {
    const place = mounted(t, kind)
    if (place === undefined) {
      t.skip('nothing can be mounted here')
      return
    }
    const [world, snapshot, hook] = [join(place, 'world'), join(place, '.millrace'), join(place, 'hook')]
    writeFileSync(hook, script(name).replaceAll('/srv/minecraft', place))
    chmodSync(hook, 0o755)
    if (name === 'btrfs') execFileSync('btrfs', ['-q', 'subvolume', 'create', world])
    else mkdirSync(world)
    fill(world, 1)
    const fake = await new FakeB2().start()
    t.after(() => fake.close())
    const { bucketName } = fake.store.addBucket('worlds')
    const { keyId, applicationKey } = fake.store.addKey()
    const env = { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey }
    const url = `b2://${bucketName}?endpoint=${fake.origin}`
    const journals = join(await scratch(t), 'journals')
    const hooks = ['--hook-before', `${hook} make`, '--hook-after', `${hook} drop`]
    const rest = ['--before', ':', '--after', ':', '--before-reaches', 'snapshot']
    const backup = [
      'backup',
      snapshot,
      '--server',
      'survival',
      '--to',
      url,
      '--journal',
      journals,
      '--resume',
      '--json',
    ]
    const args = [...backup, ...hooks, ...rest]

    const { child, result } = startMillrace(args, { env })
    while (!fake.unfinished.some(({ parts }) => parts.size >= 2)) {
      assert.equal(child.exitCode, null, 'it ended before it was killed')
      await delay(5)
    }
    child.kill('SIGKILL')
    await result
    assert.ok(existsSync(snapshot), 'the snapshot did not outlive the kill')

    fill(world, 100)
    const { code, stderr, events } = await millrace(args, { env })
    assert.equal(code, 0, stderr)
    const made = events().find(({ event }) => event === 'snapshot') as Record<string, unknown>
    assert.ok((made.takenUp as { heldBytes: number }).heldBytes >= FILE_BYTES)
    assert.deepEqual(made.consistency, 'snapshot')
    assert.ok(!existsSync(snapshot), 'the snapshot was not dropped')
    const target = join(place, 'restored')
    const restored = await millrace(['restore', 'latest', '--from', url, '--server', 'survival', '--target', target], {
      env,
    })
    assert.equal(restored.code, 0, restored.stderr)
    assert.deepEqual(readdirSync(target).length, FILES)
    for (let i = 0; i < FILES; i += 1) {
      assert.ok(readFileSync(join(target, `r.${i}.0.mca`)).equals(seededBytes(FILE_BYTES, 1 + i)), `file ${i}`)
    }

    // With nothing to go on with, one that somebody left is dropped, and another made.
    assert.equal(says(hook, 'make').status, 0)
    fill(world, 200)
    const anew = await millrace([...args.slice(0, 3), 'other', ...args.slice(4)], { env })
    assert.equal(anew.code, 0, anew.stderr)
    const cat = ['cat', 'latest', 'r.0.0.mca', '--from', url, '--server', 'other']
    assert.ok((await millrace(cat, { env })).stdout.equals(seededBytes(FILE_BYTES, 200)))
  })
}

/** Programs that keep their state as files in a folder, and write down how they were called. */
function stubs(folder: string, programs: Record<string, string>): { run(arg: string, env?: object): string[] } {
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  for (const [name, does] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/sh\necho "${name} $*" >> ${folder}/log\ncd ${folder}\n${does}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  return {
    run(arg, env = {}) {
      rmSync(join(folder, 'log'), { force: true })
      const told = { ...process.env, PATH: `${bin}:${process.env.PATH}`, MILLRACE_RESUMES: '', ...env }
      const { status, stderr } = spawnSync('sh', [join(folder, 'hook'), arg], { env: told, encoding: 'utf8' })
      assert.equal(status, 0, stderr)
      return existsSync(join(folder, 'log')) ? readFileSync(join(folder, 'log'), 'utf8').trim().split('\n') : []
    },
  }
}

const RESUMES = { MILLRACE_RESUMES: '2026-11-28T00-00-00.000Z-abcd' }
const SNAPSHOT = 'tank/minecraft@millrace'

test('the hook for ZFS makes a snapshot, keeps it for an upload that goes on, and drops it', async (t) => {
  const folder = await scratch(t)
  writeFileSync(join(folder, 'hook'), script('ZFS'))
  const { run } = stubs(folder, {
    zfs: 'case $1 in list) test -e there ;; snapshot) test ! -e there && touch there ;; destroy) rm there ;; esac',
  })
  const list = `zfs list -t snapshot ${SNAPSHOT}`
  assert.deepEqual(run('drop'), [list])
  assert.deepEqual(run('make', RESUMES), [list, list, `zfs snapshot ${SNAPSHOT}`])
  assert.deepEqual(run('make', RESUMES), [list])
  assert.deepEqual(run('make'), [list, `zfs destroy ${SNAPSHOT}`, `zfs snapshot ${SNAPSHOT}`])
  assert.deepEqual(run('drop'), [list, `zfs destroy ${SNAPSHOT}`])
  assert.ok(!existsSync(join(folder, 'there')))
})

test('the hook for LVM makes and mounts a snapshot, mounts one that a reboot has left, and drops it', async (t) => {
  const folder = await scratch(t)
  const at = (text: string) => text.replaceAll('/dev/', `${folder}/dev/`).replaceAll('/mnt/', `${folder}/mnt/`)
  writeFileSync(join(folder, 'hook'), at(script('LVM')).replaceAll(`> ${folder}/dev/null`, '> /dev/null'))
  mkdirSync(join(folder, 'dev/vg0'), { recursive: true })
  const { run } = stubs(folder, {
    lvs: 'test -e dev/vg0/millrace',
    lvcreate: 'touch dev/vg0/millrace',
    lvremove: 'rm dev/vg0/millrace',
    mountpoint: 'test -e mounted',
    mount: 'touch mounted',
    umount: 'rm mounted',
  })
  const changes = (calls: string[]) => calls.filter((call) => !/^(lvs|mountpoint) /.test(call))
  const [mount, umount] = [
    `mount -o ro ${folder}/dev/vg0/millrace ${folder}/mnt/millrace`,
    `umount ${folder}/mnt/millrace`,
  ]
  const create = `lvcreate --snapshot --size 10G --name millrace ${folder}/dev/vg0/minecraft`
  assert.deepEqual(changes(run('make')), [create, mount])
  assert.deepEqual(changes(run('make', RESUMES)), [])
  rmSync(join(folder, 'mounted'))
  assert.deepEqual(changes(run('make', RESUMES)), [mount])
  assert.deepEqual(changes(run('make')), [umount, 'lvremove -y vg0/millrace', create, mount])
  assert.deepEqual(changes(run('drop')), [umount, 'lvremove -y vg0/millrace'])
  assert.deepEqual(changes(run('drop')), [])
})
