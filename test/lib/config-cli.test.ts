import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { Marker } from '../../lib/quiesce/marker.ts'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace } from '../support/cli.ts'
import { CONFIG, events, KEY, type ManyResult, place, runMany } from '../support/config-place.ts'
import { diffTrees } from '../support/tree.ts'
import { SECRET } from '../support/wrong-config.ts'

test('a config does the whole round: backup of all servers, list, status, verify, restore, cat, pin, prune, check', async (t) => {
  const folder = await place(t)
  const cases = [
    ['backup'],
    ['backup', 'survival', '--json'],
    ['list', '--json'],
    ['status'],
    ['verify', '--server', 'survival'],
    ['verify', '--all', '--server', 'survival', '--json'],
    ['restore', 'latest', '--server', 'survival', '--target', 'out/survival'],
    ['restore', 'latest', '--server', 'creative', '--target', 'out/creative', '--from', 'local'],
    ['cat', 'latest', 'level.dat', '--server', 'creative'],
    ['inspect', 'latest', '--server', 'survival', '--json'],
    ['list', '--long', '--json', '--no-config', '--from', `file://${folder}/stores/local`, '--key-file', 'key'],
    ['pin', 'latest', '--server', 'survival', '--json'],
    ['prune', '--server', 'survival', '--keep-last', '1', '--json'],
    ['prune', '--server', 'survival', '--dry-run', '--json'],
    ['backup', 'creative', '--to', 'spare', '--dry-run', '--json'],
    ['backup', 'creative', '--to', 'spare', '--prune', '--json'],
    ['check', '--json'],
    ['config', 'check', '--secrets', '--json'],
    ['config', 'check'],
    ['config', 'schema'],
    ['config', 'example'],
    ['backup', 'worlds/creative', '--to', 'local', '--server', 'other', '--level', '1', '--json'],
    ['restore', 'latest', '--server', 'other', '--from', 'local', '--target', 'out/other'],
  ]
  const results = await runMany(
    folder,
    cases.map((args) => ({ args, cwd: folder })),
  )
  const of = (...args: string[]) => {
    const at = cases.findIndex((one) => args.every((word) => one.includes(word)))
    return results[at] as ManyResult
  }
  for (const [at, { code, stdout, stderr }] of results.entries()) {
    assert.equal(code, 0, `millrace ${cases[at]?.join(' ')}\n${stdout}${stderr}`)
    assert.ok(!`${stdout}${stderr}`.includes(SECRET) && !`${stdout}${stderr}`.includes(KEY))
  }
  assert.match(results[0]?.stdout ?? '', /of survival as .*of creative as .*All 2 servers were backed up\.\n$/s)
  const made = events(of('backup', 'survival', '--json')).find(({ event }) => event === 'snapshot') as Record<
    string,
    unknown
  >
  assert.deepEqual(
    (made.destinations as { destination: string }[]).map(({ destination }) => destination),
    [`file://${folder}/stores/local`, `file://${folder}/stores/spare`],
  )
  assert.equal((made.omissions as { excluded: number }).excluded, 1)
  assert.deepEqual(
    events(of('list', '--json')).map(({ server }) => server),
    ['survival', 'survival', 'creative'],
  )
  assert.equal(of('status').stdout.match(/good \(at most 26h/g)?.length, 3)
  assert.equal(events(of('verify', '--all')).filter(({ event }) => event === 'summary').length, 2)
  assert.deepEqual(diffTrees(join(folder, 'worlds/creative'), join(folder, 'out/creative')), [])
  assert.deepEqual(await readdir(join(folder, 'out/survival')), ['level.dat'])
  assert.equal(of('cat').stdout.length > 0, true)
  assert.deepEqual(
    events(of('list', '--no-config')).map(({ server, problem }) => [server, typeof problem]),
    [
      ['creative', 'string'],
      ['survival', 'undefined'],
      ['survival', 'undefined'],
    ],
  )
  // A pin keeps a snapshot from the prune of the store that it lies in, so it lies in each.
  assert.deepEqual(
    events(of('pin')).map(({ destination }) => destination),
    [`file://${folder}/stores/local`, `file://${folder}/stores/spare`],
  )
  assert.deepEqual(
    events(of('prune', '--keep-last'))
      .filter(({ event }) => event === 'prune')
      .map(({ counts }) => (counts as { removed: number }).removed),
    [1, 1],
  )
  assert.equal(events(of('prune', '--dry-run')).filter(({ event }) => event === 'prune').length, 2)
  assert.equal((await readdir(join(folder, 'stores/spare'))).includes('creative'), true)
  assert.equal(events(of('check', '--json')).filter(({ event, ok }) => event === 'check' && ok).length, 2)
  assert.match(of('config', 'check').stdout, /"secrets":"read"/)
  assert.match(
    results[18]?.stdout ?? '',
    /^SERVER +SOURCE.*survival .*local, spare .*last 2 +26h +key.*creative .*26h +password.*is good: 2 servers, 2 destinations\.\n$/s,
  )
  // The password of a server that the config does not name is the one for all.
  assert.deepEqual(diffTrees(join(folder, 'worlds/creative'), join(folder, 'out/other')), [])
  assert.match(await readFile(join(folder, 'millrace.prom'), 'utf8'), /server="creative"/)
  assert.ok((await readdir(join(folder, 'kept'))).length > 0, 'the state folder of the config is used')
})

test('one server that fails does not stop the next, and the gravest exit code is that of all', async (t) => {
  const folder = await place(t, CONFIG.replace('worlds/survival', 'worlds/absent').replace('26h', '1s'))
  const cases = [
    ['backup', '--json'],
    ['backup'],
    ['backup', 'creative', 'survival'],
    ['status'],
    ['backup', 'creative', '--max-age'],
  ]
  const results = await runMany(
    folder,
    cases.map((args) => ({ args, cwd: folder })),
  )
  const [asJson, plain, inOrder, status] = results as [ManyResult, ManyResult, ManyResult, ManyResult]
  assert.equal(asJson.code, 1)
  assert.deepEqual(
    events(asJson)
      .map(({ event }) => event)
      .filter((event) => event !== 'progress'),
    ['error', 'snapshot', 'backup'],
  )
  assert.match(String(events(asJson)[0]?.message), /^survival: The source ".*absent" does not exist\.$/)
  assert.equal(events(asJson)[0]?.code, 'SOURCE')
  assert.deepEqual(events(asJson).at(-1)?.servers, [
    { server: 'survival', exitCode: 1 },
    { server: 'creative', exitCode: 0 },
  ])
  assert.equal(plain.code, 1)
  assert.match(plain.stdout, /1 of 2 servers without a complaint; not: survival \(exit code 1\)\.\n$/)
  assert.equal(inOrder.code, 1)
  // One has none, which is too old as well.
  assert.equal(status.code, 6)
  assert.match(status.stdout, /NO SNAPSHOT/)
})

test('restores fall back to the next destination of the config, and a word is a folder beside --to', async (t) => {
  const folder = await place(t)
  await mkdir(join(folder, 'survival'))
  await writeFile(join(folder, 'survival/other.dat'), 'other')
  const before = await runMany(folder, [
    { args: ['backup', 'survival'], cwd: folder },
    // Beside a store it is the folder, as it was without a config.
    { args: ['backup', 'survival', '--to', `file://${folder}/stores/third`], cwd: folder },
    {
      args: [
        'restore',
        'latest',
        '--server',
        'survival',
        '--from',
        `file://${folder}/stores/third`,
        '--target',
        'third',
      ],
      cwd: folder,
    },
  ])
  for (const { code, stderr } of before) assert.equal(code, 0, stderr)
  assert.deepEqual(await readdir(join(folder, 'third')), ['other.dat'])
  // Where the first is a disk that is not mounted, what is listed is what would be restored.
  await rename(join(folder, 'stores/local'), join(folder, 'unplugged'))
  const [listed] = await runMany(folder, [{ args: ['list', '--server', 'survival'], cwd: folder }])
  assert.match(listed?.stdout ?? '', /1 snapshot, /)
  assert.match(listed?.stderr ?? '', /stores\/local was not used: No snapshot of survival is there\.\n/)
  await rm(join(folder, 'stores/local'), { recursive: true, force: true })
  await rename(join(folder, 'unplugged'), join(folder, 'stores/local'))
  const object = (await readdir(join(folder, 'stores/local/survival'))).find((name) => name.endsWith('.mlr')) as string
  const stored = await readFile(join(folder, 'stores/local/survival', object))
  stored[stored.length - 40] = (stored[stored.length - 40] as number) ^ 1
  await writeFile(join(folder, 'stores/local/survival', object), stored)
  const [restored] = await runMany(folder, [
    { args: ['restore', 'latest', '--server', 'survival', '--target', 'out'], cwd: folder },
  ])
  assert.equal(restored?.code, 0, restored?.stderr)
  assert.match(restored?.stderr ?? '', /stores\/local was not used/)
  assert.deepEqual(await readdir(join(folder, 'out')), ['level.dat'])
})

/** A place whose config holds its server still by the RCON of a Minecraft server. */
async function heldByRcon(t: TestContext) {
  const minecraft = await serveMinecraft()
  t.after(() => minecraft.close())
  const where = `127.0.0.1:${minecraft.port}`
  const folder = await place(
    t,
    CONFIG.replace('level: 1', `level: 1\n    quiesce: { by: rcon, address: "${where}", password: file:rcon }`),
  )
  await writeFile(join(folder, 'rcon'), `${RCON_PASSWORD}\n`)
  return { minecraft, where, folder }
}

test('a server is held still by the RCON of the config, and resume-saving finds its password there', async (t) => {
  const { minecraft, where, folder } = await heldByRcon(t)
  const nothing = await runMany(folder, [
    { args: ['backup', 'survival', '--json'], cwd: folder },
    { args: ['resume-saving'], cwd: folder },
  ])
  for (const { code, stderr } of nothing) assert.equal(code, 0, stderr)
  const made = events(nothing[0] as ManyResult).find(({ event }) => event === 'snapshot')
  assert.equal(made?.consistency, 'quiesced')
  assert.match(nothing[1]?.stdout ?? '', /^No backup has left saving off\./)
  assert.deepEqual(
    minecraft.asked.filter((one) => one !== 'login'),
    ['save-off', 'save-all flush', 'save-on'],
  )
  // As a backup that was killed leaves it, in the state folder of the config.
  const marker = await Marker.take(join(folder, 'kept'), 'rcon', where, 'survival', Date.now())
  await marker.abandon()
  const [resumed] = await runMany(folder, [{ args: ['resume-saving', '--json'], cwd: folder }])
  assert.equal(resumed?.code, 0, resumed?.stderr)
  const { servers } = events(resumed as ManyResult)[0] as { servers: { where: string }[] }
  assert.deepEqual(
    servers.map((one) => one.where),
    [where],
  )
  assert.equal(minecraft.asked.at(-1), 'save-on')
})

test('beside a config resume-saving finds also what it does not name, and its passwords come before the environment', async (t) => {
  const { where, folder } = await heldByRcon(t)
  const leave = async (server: string) =>
    (await Marker.take(join(folder, 'kept'), 'rcon', where, server, Date.now())).abandon()
  await leave('survival')
  const wrong = { env: { MILLRACE_RCON_PASSWORD: 'of another server' }, cwd: folder }
  const [byConfig] = await runMany(folder, [{ args: ['resume-saving'], ...wrong }])
  assert.equal(byConfig?.code, 0, byConfig?.stderr)
  // Of a backup whose RCON was named by an option: nobody is told that nothing is left off.
  await leave('modded')
  const [helpless, helped, unknown] = await runMany(folder, [
    { args: ['resume-saving'], cwd: folder },
    { args: ['resume-saving'], cwd: folder, env: { MILLRACE_RCON_PASSWORD: RCON_PASSWORD } },
    { args: ['resume-saving', '--server', 'survivl'], cwd: folder },
  ])
  assert.equal(helpless?.code, 2, helpless?.stdout)
  assert.match(helpless?.stderr ?? '', /^millrace: No RCON password was given\./)
  assert.equal(helped?.code, 0, helped?.stderr)
  assert.match(helped?.stdout ?? '', /^Saving at .* \(modded\) /)
  assert.match(unknown?.stderr ?? '', /no server called survivl\. Did you mean survival\?/)
})

test('as a process of its own: MILLRACE_CONFIG, all servers, and a config that is wrong', async (t) => {
  const folder = await place(t)
  const file = join(folder, 'millrace.yaml')
  const all = await millrace(['backup', '--json'], { env: { MILLRACE_CONFIG: file } })
  assert.equal(all.code, 0, all.stderr)
  assert.deepEqual(
    all
      .events()
      .filter(({ event }) => event === 'snapshot')
      .map(({ server }) => server),
    ['survival', 'creative'],
  )
  await writeFile(file, CONFIG.replace('retention', 'retentoin'))
  const wrong = await millrace(['backup', '--config', file])
  assert.equal(wrong.code, 2)
  assert.equal(wrong.stderr, `millrace: ${file}:6:13 defaults.retentoin is not known. Did you mean retention?\n`)
})
