import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { millrace, scratch } from '../support/cli.ts'
import { rounds } from '../support/rounds.ts'
import { sample } from '../support/streams.ts'

/** A world that has been backed up, and its object. */
async function backedUp(t: TestContext) {
  const folder = await scratch(t)
  const [world, store, target] = ['world', 'store', 'out'].map((name) => join(folder, name)) as [string, string, string]
  await mkdir(world)
  await writeFile(join(world, 'level.dat'), sample(5000))
  const from = ['--from', `file://${store}`, '--server', 'world']
  const made = await millrace(['backup', world, '--to', `file://${store}`])
  assert.equal(made.code, 0, made.stderr)
  const name = (await readdir(join(store, 'world'))).find((one) => one.endsWith('.mlr')) as string
  const object = join(store, 'world', name)
  return { folder, object, target, from, bytes: await readFile(object) }
}

/** With one line, no stack, and nothing left of it. */
async function isDamaged({ folder, from, target }: Awaited<ReturnType<typeof backedUp>>, what: string) {
  const { code, stderr } = await millrace(['restore', 'latest', ...from, '--target', target])
  assert.equal(code, 4, `${what}: ${stderr}`)
  assert.equal(stderr.trim().split('\n').length, 1, stderr)
  assert.deepEqual((await readdir(folder)).sort(), ['store', 'world'])
}

// Of the container every cut and every byte is tried in test/transforms.
test('T1: cuts of a snapshot, through the command', async (t) => {
  const made = await backedUp(t)
  const { length } = made.bytes
  const cuts = [length - 1, Math.floor(length / 2), 64, 0]
  for (const left of rounds(cuts, [...cuts, Math.floor(length * 0.75), 92, 63])) {
    await writeFile(made.object, made.bytes.subarray(0, left))
    await isDamaged(made, `${left} bytes`)
  }
  const verified = await millrace(['verify', ...made.from])
  assert.equal(verified.code, 4, verified.stderr)
})

test('T34: flipped bytes of a snapshot, through the command', async (t) => {
  const made = await backedUp(t)
  const places = [0, 64, 3000, made.bytes.length - 1]
  for (const at of rounds(places, [...places, 8, 12, 20, 40, 80])) {
    const changed = Buffer.from(made.bytes)
    changed[at] = (changed[at] as number) ^ 4
    await writeFile(made.object, changed)
    await isDamaged(made, `byte ${at}`)
  }
})
