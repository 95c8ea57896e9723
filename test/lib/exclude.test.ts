import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openMemory } from '../../adapters/memory.ts'
import { selectionOf } from '../../lib/exclude.ts'
import { type CreateOptions, GAME_DEFAULTS, type LeftOut, openBackups, planBackup } from '../../lib/index.ts'
import { millrace, scratch } from '../support/cli.ts'
import { seededBytes } from '../support/random.ts'
import { leftOutTree, makeTree } from '../support/tree.ts'

/** A folder with these files; a name that ends in a slash is an empty folder. */
async function folderOf(t: TestContext, names: readonly string[]): Promise<string> {
  const folder = join(await scratch(t), 'world')
  await mkdir(folder)
  for (const name of names) {
    const path = join(folder, name)
    await mkdir(name.endsWith('/') ? path : dirname(path), { recursive: true })
    if (!name.endsWith('/')) await writeFile(path, name)
  }
  return folder
}

/** What of the folder is backed up, and what creating it says. */
async function backedUp(folder: string, options: CreateOptions = {}) {
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 7) })
  const left: LeftOut[] = []
  const made = await backups.create(folder, { ...options, onLeftOut: (one) => left.push(one) })
  const paths: string[] = []
  const { head } = await backups.inspect('latest', { onEntry: ({ path }) => paths.push(path) })
  assert.equal(made.omissions.excluded, left.length)
  assert.equal(head?.excluded ?? 0, left.length)
  const planned: LeftOut[] = []
  const plan = await planBackup(folder, { ...options, onLeftOut: (one) => planned.push(one) })
  const byPath = (a: LeftOut, b: LeftOut) => (a.path < b.path ? -1 : 1)
  assert.deepEqual(planned.sort(byPath), [...left].sort(byPath))
  assert.deepEqual([plan.files, plan.entries, plan.excluded], [made.files, paths.length, left.length])
  assert.ok(plan.bytes >= made.bytes)
  return { paths, left, made }
}

const FILES = [
  'a.tmp',
  'b.txt',
  'cache/one',
  'deep/a.tmp',
  'deep/cache/two',
  'deep/er/c.txt',
  'deep/keep.tmp',
  'logs',
  'mods/logs/latest.log',
]
const ALL = ['cache', 'deep', 'deep/cache', 'deep/er', 'mods', 'mods/logs', ...FILES]

/** The patterns, what they leave out, and what is in it (which nobody is asked about). */
const CASES: [string[], string[], string[]?][] = [
  [['*.tmp'], ['a.tmp', 'deep/a.tmp', 'deep/keep.tmp']],
  [['/*.tmp'], ['a.tmp']],
  [['deep/*.tmp'], ['deep/a.tmp', 'deep/keep.tmp']],
  [
    ['*.tmp', '!keep.tmp'],
    ['a.tmp', 'deep/a.tmp'],
  ],
  [
    ['!keep.tmp', '*.tmp'],
    ['a.tmp', 'deep/a.tmp', 'deep/keep.tmp'],
  ],
  [['cache'], ['cache', 'deep/cache'], ['cache/one', 'deep/cache/two']],
  [['cache/'], ['cache', 'deep/cache'], ['cache/one', 'deep/cache/two']],
  [['/cache/'], ['cache'], ['cache/one']],
  [['logs/'], ['mods/logs'], ['mods/logs/latest.log']],
  [['logs'], ['logs', 'mods/logs'], ['mods/logs/latest.log']],
  [['deep/**'], ['deep/a.tmp', 'deep/cache', 'deep/er', 'deep/keep.tmp'], ['deep/cache/two', 'deep/er/c.txt']],
  [['deep/', '!deep/keep.tmp'], ['deep'], ALL.filter((name) => name.startsWith('deep/'))],
  [
    ['deep/*', '!deep/keep.tmp'],
    ['deep/a.tmp', 'deep/cache', 'deep/er'],
    ['deep/cache/two', 'deep/er/c.txt'],
  ],
  [['**/er/*.txt'], ['deep/er/c.txt']],
  [['deep/**/c.txt'], ['deep/er/c.txt']],
  [['[ab].*'], ['a.tmp', 'b.txt', 'deep/a.tmp']],
  [['[!ab].*'], ['deep/er/c.txt']],
  [['[^ab].*'], ['deep/er/c.txt']],
  [['[![:alpha:].]*', '[!a-c]*/**/[!a]*.log'], ['mods/logs/latest.log']],
  [['?.txt'], ['b.txt', 'deep/er/c.txt']],
  [['#a.tmp', '', '   ', 'b.txt   '], ['b.txt']],
  [['{a,b}.*', '@(a|b).*'], []],
]

for (const [patterns, left, within = []] of CASES) {
  test(`excluded by ${JSON.stringify(patterns)}, from the option or the ignore file`, async (t) => {
    const folder = await folderOf(t, FILES)
    const stays = ALL.filter((name) => !left.includes(name) && !within.includes(name)).sort()
    const byOption = await backedUp(folder, { exclude: patterns })
    assert.deepEqual(byOption.left.map(({ path }) => path).sort(), left)
    assert.deepEqual(byOption.paths.sort(), stays)
    await writeFile(join(folder, '.millraceignore'), patterns.join('\r\n'))
    const byFile = await backedUp(folder)
    assert.deepEqual(byFile.left.map(({ path }) => path).sort(), left)
    assert.deepEqual(byFile.paths.sort(), ['.millraceignore', ...stays].sort())
    assert.equal(byFile.made.incomplete, false)
  })
}

test('names that hold what patterns give a meaning to are left out with a backslash', async (t) => {
  const folder = await folderOf(t, [
    '#a',
    '!b',
    'c*',
    'cc',
    '[d]',
    'd',
    'e ',
    'e',
    'f{1,2}',
    'ff',
    'g+(h)',
    'i.j',
    'ixj',
  ])
  const { left } = await backedUp(folder, {
    exclude: ['\\#a', '\\!b', 'c\\*', '\\[d\\]', 'e\\ ', 'f{1,2}', 'g+(h)', 'i.j'],
  })
  assert.deepEqual(left.map(({ path }) => path).sort(), ['!b', '#a', '[d]', 'c*', 'e ', 'f{1,2}', 'g+(h)', 'i.j'])
})

test('a line break in a name is a character like others, to what is left out and to what is taken', async (t) => {
  const names = ['a\nb.tmp', 'a\nb.txt', 'deep/x\ny', 'deep/er\n/z', 'two\nlines/q', 'z']
  const folder = await folderOf(t, names)
  const { left } = await backedUp(folder, { exclude: ['*.tmp', 'deep/**', 'q'] })
  assert.deepEqual(left.map(({ path }) => path).sort(), ['a\nb.tmp', 'deep/er\n', 'deep/x\ny', 'two\nlines/q'])
  const { paths } = await backedUp(folder, { include: ['deep', 'a*'] })
  assert.deepEqual(paths.sort(), ['a\nb.tmp', 'a\nb.txt', 'deep', 'deep/er\n', 'deep/er\n/z', 'deep/x\ny'])
})

test('the option comes after the ignore file, and says which pattern it was', async (t) => {
  const folder = await folderOf(t, ['a.tmp', 'b.tmp', 'c.log'])
  await writeFile(join(folder, '.millraceignore'), '# ours\n*.tmp\n')
  const { left } = await backedUp(folder, { exclude: ['!b.tmp', '*.log'] })
  assert.deepEqual(left, [
    { path: 'a.tmp', folder: false, pattern: '*.tmp', origin: '.millraceignore:2' },
    { path: 'c.log', folder: false, pattern: '*.log', origin: 'exclude' },
  ])
})

test('included are what the globs take and the folders on the way, less what is excluded', async (t) => {
  const folder = await folderOf(t, [...FILES, 'other/x/y'])
  const include = ['deep/er', 'mods/*/*.log', 'b.txt', '**/keep.tmp']
  const { paths } = await backedUp(folder, { include, exclude: ['c.txt', 'other/'] })
  assert.deepEqual(paths.sort(), [
    'b.txt',
    'cache',
    'deep',
    'deep/cache',
    'deep/er',
    'deep/keep.tmp',
    'mods',
    'mods/logs',
    'mods/logs/latest.log',
  ])
  const narrow = await backedUp(folder, { include: ['deep/er', 'mods/{logs,x}/*'] })
  assert.ok(!narrow.paths.includes('b.txt'))
  assert.ok(narrow.paths.includes('mods/logs/latest.log'))
  const one = await backedUp(folder, { include: ['deep/er/c.txt'] })
  assert.deepEqual(one.paths.sort(), ['deep', 'deep/er', 'deep/er/c.txt'])
})

test('an include pattern that takes nothing is warned of, and is no reason to call the snapshot incomplete', async (t) => {
  const folder = await folderOf(t, ['world/level.dat', 'world_nether/level.dat', 'cache/x'])
  const include = ['world', 'world_nehter', 'cache']
  const backups = await openBackups({ storage: await openMemory(), server: 'survival', key: Buffer.alloc(32, 7) })
  const warned: string[] = []
  const onWarning = ({ kind, path }: { kind: string; path: string }) => warned.push(`${kind} ${path}`)
  const made = await backups.create(folder, { include, exclude: ['cache/'], onWarning })
  assert.deepEqual(warned, ['pattern world_nehter', 'pattern cache'])
  assert.equal(made.incomplete, false)
  await planBackup(folder, { include, exclude: ['cache/'], onWarning })
  assert.deepEqual(warned.slice(2), warned.slice(0, 2))
  const shown = await millrace([
    'backup',
    folder,
    '--to',
    `file://${folder}-store`,
    '--include',
    ...include,
    '--dry-run',
  ])
  assert.match(shown.stderr, /Warning: Nothing in the source matches the pattern "world_nehter"/)
  await assert.rejects(backups.create(folder, { include: ['nothing'] }), {
    code: 'EMPTY_SOURCE',
    message: /by the patterns/,
  })
  const thrower = () => {
    throw new Error('of the listener')
  }
  await assert.rejects(
    backups.create(folder, { include: [...include, 'nothing'], onWarning: thrower }),
    /of the listener/,
  )
  // By then nothing is missing of it any more.
  assert.deepEqual(
    (await backups.list()).map(({ complete }) => complete),
    [true, true],
  )
})

test('patterns that match nothing, ignore files that cannot be read and sources that are no folder are refused', async (t) => {
  const folder = await folderOf(t, ['a', 'sub/'])
  for (const pattern of ['/', '!', '../x', 'a//b', './a']) {
    await assert.rejects(planBackup(folder, { exclude: [pattern] }), { code: 'USAGE' }, pattern)
  }
  await assert.rejects(backedUp(join(folder, 'a'), { exclude: ['x'] }), { code: 'USAGE' })
  await assert.rejects(backedUp(folder, { exclude: ['*'] }), { code: 'EMPTY_SOURCE' })
  await writeFile(join(folder, '.millraceignore'), Buffer.from([0xff, 0xfe]))
  await assert.rejects(planBackup(folder), { code: 'SOURCE' })
  const other = await folderOf(t, ['a', 'sub/'])
  await symlink('sub', join(other, '.millraceignore'))
  await assert.rejects(planBackup(other), { code: 'SOURCE' })
  const piped = await folderOf(t, ['a'])
  await makeTree(piped, [{ path: '.millraceignore', type: 'fifo' }])
  await assert.rejects(planBackup(piped), { code: 'SOURCE' })
})

test('only a folder that is a Minecraft world or server has defaults, and they can be turned off', async (t) => {
  const extra = ['session.lock', 'logs/latest.log', 'cache/x', 'world/session.lock', 'world/logs/mine']
  const leftOf = async (names: string[], options: CreateOptions = {}) =>
    (await backedUp(await folderOf(t, [...extra, ...names]), options)).left
      .map(({ path, origin }) => `${origin}: ${path}`)
      .sort()
  assert.deepEqual(await leftOf([]), [])
  assert.deepEqual(await leftOf(['server.properties']), [])
  assert.deepEqual(await leftOf(['level.dat']), ['Minecraft world: session.lock'])
  const server = ['server.properties', 'world/level.dat']
  assert.deepEqual(await leftOf(server), [
    'Minecraft server: cache',
    'Minecraft server: logs',
    'Minecraft server: world/session.lock',
  ])
  assert.deepEqual(await leftOf(server, { exclude: ['!logs/'] }), [
    'Minecraft server: cache',
    'Minecraft server: world/session.lock',
  ])
  assert.deepEqual(await leftOf(server, { defaultExcludes: false }), [])
})

test('the guide names every default, and every game', () => {
  const guide = readFileSync(join(import.meta.dirname, '../../docs/guides/live-worlds.md'), 'utf8')
  for (const { game, exclude } of GAME_DEFAULTS) {
    const row = guide.split('\n').find((line) => line.startsWith(`| ${game} |`))
    assert.equal(row?.split('|')[3]?.trim(), exclude.map((pattern) => `\`${pattern}\``).join(', '))
  }
})

test('backup --dry-run shows what would be backed up and what not, needs no password, and writes nothing', async (t) => {
  const folder = await folderOf(t, ['level.dat', 'session.lock', 'a.tmp', 'region/r.0.0.mca'])
  await makeTree(join(folder, 'odd'), leftOutTree())
  const args = ['backup', folder, '--to', `file://${folder}-store`, '--exclude', '*.tmp', '--dry-run']
  const env = { MILLRACE_PASSWORD: '' }
  const shown = await millrace(args, { env })
  assert.equal(shown.code, 0, shown.stderr)
  const text = shown.stdout.toString()
  assert.match(text, /Would back up \d+ files/)
  assert.match(text, /recognised as: Minecraft world/)
  assert.match(text, /^a\.tmp +\*\.tmp \(exclude\)$/m)
  assert.match(text, /^session\.lock +\/session\.lock \(Minecraft world\)$/m)
  assert.match(text, /socket, fifo or device/)
  assert.match(text, /not UTF-8/)
  const events = (await millrace([...args, '--json'], { env })).events()
  assert.deepEqual(
    events
      .filter(({ event }) => event === 'left-out')
      .map(({ path }) => path)
      .sort(),
    ['a.tmp', 'session.lock'],
  )
  assert.equal(events.at(-1)?.event, 'plan')
  assert.equal(events.at(-1)?.excluded, 2)
  assert.equal(existsSync(`${folder}-store`), false)
})

test('what was left out is in the result, in inspect and in list --long', async (t) => {
  const folder = await folderOf(t, ['level.dat', 'session.lock', 'a.tmp'])
  const url = `file://${folder}-store`
  const made = await millrace(['backup', folder, '--to', url, '--exclude', '*.tmp'])
  assert.equal(made.code, 0, made.stderr)
  assert.match(made.stdout.toString(), /left out by patterns: 2 names/)
  const from = ['--from', url, '--server', 'world']
  assert.match((await millrace(['inspect', 'latest', ...from])).stdout.toString(), /left out +2 names by patterns/)
  const [listed] = (await millrace(['list', ...from, '--long', '--json'])).events()
  assert.deepEqual(listed?.known, { consistency: 'live', files: 1, bytes: 3072, excluded: 2 })
})

test('thousands of names to leave out or to take cost no more for each path than some do', () => {
  const paths = Array.from({ length: 1000 }, (_, at) => `world/region/r.${at}.mca`)
  const cost = (count: number) => {
    const names = Array.from({ length: count }, (_, at) => (at % 2 ? `/world/old/${at}.dat` : `cache-${at}.tmp`))
    const patterns = names.map((pattern) => ({ pattern, origin: 'exclude' }))
    const selection = selectionOf({ game: null, patterns, include: [...names.map((name) => name.slice(1)), 'world'] })
    const { user } = process.cpuUsage()
    for (const path of paths) assert.equal(selection.judge(path, false), undefined)
    assert.equal(selection.unused().length, count)
    return process.cpuUsage().user - user
  }
  const few = cost(50)
  const many = cost(5000)
  assert.ok(many < 20 * few + 200_000, `${many} µs of CPU for 5,000 names, and ${few} for 50`)
})

test('of names and globs the last that matches decides, whichever it is', () => {
  const rules = [
    'a',
    '!a',
    '/a',
    'b/',
    '!b',
    '/x/b',
    '!/x/b',
    '*',
    '!*',
    '?',
    '/x/*',
    '!/x/?',
    '**/b/',
    '[ab]',
    '!x/**',
  ]
  const random = seededBytes(60_000, 4).values()
  const pick = <T>(from: readonly T[]) => from[(random.next().value as number) % from.length] as T
  for (let round = 0; round < 2000; round++) {
    const patterns = Array.from({ length: 5 }, () => ({ pattern: pick(rules), origin: 'exclude' }))
    // As it is told: each for itself, from the last to the first.
    const single = patterns.map(({ pattern, origin }) => {
      const negated = pattern.startsWith('!')
      const rule = { pattern: negated ? pattern.slice(1) : pattern, origin }
      return { negated, pattern, ...selectionOf({ game: null, patterns: [rule] }) }
    })
    const both = selectionOf({ game: null, patterns })
    const [path, isFolder] = [pick(['a', 'b', 'x', 'x/a', 'x/b', 'x/b/a']), pick([true, false])]
    const last = single.findLast((one) => one.judge(path, isFolder) !== undefined)
    const expected = last && !last.negated ? last.pattern : undefined
    assert.equal(both.judge(path, isFolder)?.pattern, expected, JSON.stringify({ patterns, path, isFolder }))
  }
})
