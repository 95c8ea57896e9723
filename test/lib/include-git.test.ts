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
]
const MORE_OF_GIT = ['[a-c]*', '**', '\\a', '\\*', '\\#a', '\\!a', '\\\\', 'x[[]1]', 'a\\*', '[.]a', '*.*', '?*']
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
