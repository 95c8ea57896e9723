import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { selectionOf } from '../../lib/exclude.ts'
import { matchPaths } from '../../lib/select.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { NAMES, ofSelection, scatterNames } from '../support/odd-names.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { tempFolder } from '../support/tree.ts'

/** What git knows too, as `:(glob)` of a path. */
const OF_GIT = [
  'a',
  'b',
  'ab',
  'a.b',
  '.a',
  'a b',
  'A',
  '~',
  '-',
  '^a',
  '$',
  '#a',
  '!a',
  '*',
  '?',
  '[ab]',
  '[!a]',
  '[^a-b]',
  '(a)',
  'a|b',
]
const MORE_OF_GIT = [
  '[a-c]*',
  '**',
  '\\a',
  '\\*',
  '\\#a',
  '\\!a',
  '\\\\',
  'x[[]1]',
  'a\\*',
  '[.]a',
  '*.*',
  '?*',
  '(a)*',
  '(?)',
  'a|*',
  '{a*',
]
/** What git does not. */
const EXTENDED = ['{a,b}', '{a,b}*', '@(a|b)', '!(a)', '+(a|b)', '*(a)', '?(a)b', '{a/b,b}', '{a..c}', 'a!(b)']
const WORLDS = 10
const PATTERNS_EACH = 12

function patternsOf(random: Random, parts: readonly string[]): string[] {
  return Array.from({ length: 1 + random.int(2) }, () => {
    const names = Array.from({ length: 1 + random.int(3) }, () => random.pick(parts))
    // `a/**` takes a file a here and not with git.
    if (names.at(-1) === '**') names.push(random.pick(['*', 'a']))
    return names.join('/')
  })
}

function ofGit(dir: string, patterns: readonly string[]): string[] {
  const globs = patterns.flatMap((pattern) => [`:(glob)${pattern}`, `:(glob)${pattern}/**`])
  const listed = execFileSync('git', ['ls-files', '-z', '--others', '--', ...globs], { cwd: dir })
  return listed.toString().split('\0').filter(Boolean).sort()
}

for (const seed of faultSeeds(...Array.from({ length: WORLDS }, (_, at) => at))) {
  test(`what is included is what git would take, and a backup finds all of it (seed ${seed})`, (t) => {
    const random = seededRandom(seed, 'includes')
    const dir = tempFolder(t)
    scatterNames(random, dir)
    execFileSync('git', ['init', '-q', dir])
    const all = ofSelection(() => undefined, dir)
    assert.ok(all.length > NAMES.length / 2)
    for (let at = 0; at < PATTERNS_EACH; at++) {
      const known = random.chance(0.5)
      const parts = [...OF_GIT, ...MORE_OF_GIT]
      const include = patternsOf(random, known ? parts : [...parts, ...EXTENDED])
      const shown = JSON.stringify(include)
      const matcher = matchPaths(include)
      const taken = all.filter((path) => matcher.takes(path)).sort()
      if (known) assert.deepEqual(taken, ofGit(dir, include), shown)
      for (const pattern of include) {
        const alone = matchPaths([pattern])
        assert.equal(matcher.unused().includes(pattern), !all.some((path) => alone.takes(path)), shown)
      }
      const { judge } = selectionOf({ game: null, patterns: [], include })
      assert.deepEqual(ofSelection(judge, dir).sort(), taken, shown)
    }
  })
}

test('parentheses and bars that are no glob stand for themselves', () => {
  for (const [pattern, takes, leaves] of [
    ['world (1)/*.dat', 'world (1)/a.dat', 'world 1/a.dat'],
    ['a|b*', 'a|bc', 'a'],
    ['@(a (1)|b)*', 'a (1)c', 'a 1c'],
    ['{a,b (1)}*', 'b (1)c', 'b 1c'],
    ['@(a|b*', '@(a|bc', 'a'],
    ['a{b*', 'a{bc', 'ab'],
    ['[(|]a*', '|ab', 'ab'],
  ] as const) {
    assert.ok(matchPaths([pattern]).takes(takes), pattern)
    assert.ok(!matchPaths([pattern]).takes(leaves), pattern)
    const { judge } = selectionOf({ game: null, patterns: [], include: [pattern] })
    assert.equal(judge(takes, false), undefined, pattern)
    assert.notEqual(judge(leaves, false), undefined, pattern)
  }
})
