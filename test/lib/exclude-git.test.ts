import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openSelection, type Selection } from '../../lib/exclude.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { tempFolder } from '../support/tree.ts'

/** Names with all that a pattern gives a meaning to. `?` is a character here and a byte to git, so these are ASCII. */
const PLAIN = ['a', 'b', 'ab', 'a.b', '.a', 'a b', 'A', '{a}', '(a)', 'a+', '@a', '~', '^a', '$', 'a|b', '-']
const NAMES = [...PLAIN, '!a', '#a', 'a*', 'x[1]', 'a\\b', 'new\nline', 'a]']
const PARTS = [...PLAIN, '*', '*', '?', '[ab]', '[!a]', '[^a-b]', '[a-c]*', '**', '\\a', '\\*', '\\#a', '\\!a', '\\\\']
const WORLDS = 12
const PATTERNS_EACH = 10

function scatterNames(random: Random, dir: string): void {
  const folders = [dir]
  const make = (count: number, one: (path: string) => void) => {
    for (let at = 0; at < count; at++) {
      const path = join(random.pick(folders), random.pick(NAMES))
      if (!fs.existsSync(path)) one(path)
    }
  }
  make(8, (path) => {
    fs.mkdirSync(path)
    folders.push(path)
  })
  make(40, (path) => fs.writeFileSync(path, ''))
}

function pattern(random: Random): string {
  const parts = Array.from({ length: 1 + random.int(3) }, () =>
    random.chance(0.2) ? random.pick(['a', '*', '?', 'b']) + random.pick(['*', 'a', '?', '.']) : random.pick(PARTS),
  )
  const [not, root, folder] = [
    random.chance(0.25) ? '!' : '',
    random.chance(0.2) ? '/' : '',
    random.chance(0.2) ? '/' : '',
  ]
  return `${not}${root}${parts.join('/')}${folder}`
}

/** The files that git would take. */
function ofGit(dir: string, patterns: readonly string[]): string[] {
  const env = { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_NOSYSTEM: '1' }
  const ignore = join(dir, '.git/info/exclude')
  fs.mkdirSync(join(dir, '.git/info'), { recursive: true })
  fs.writeFileSync(ignore, patterns.join('\n'))
  const listed = execFileSync('git', ['ls-files', '-z', '--others', '--exclude-standard'], { cwd: dir, env })
  return listed.toString().split('\0').filter(Boolean)
}

function ofSelection(judge: Selection['judge'], dir: string, prefix = ''): string[] {
  return fs.readdirSync(join(dir, prefix), { withFileTypes: true }).flatMap((entry) => {
    const path = prefix + entry.name
    if (path === '.git' || judge(path, entry.isDirectory())) return []
    return entry.isDirectory() ? ofSelection(judge, dir, `${path}/`) : [path]
  })
}

for (const seed of faultSeeds(...Array.from({ length: WORLDS }, (_, at) => at))) {
  test(`patterns mean what they mean to git (seed ${seed})`, async (t) => {
    const random = seededRandom(seed, 'patterns')
    const dir = tempFolder(t)
    scatterNames(random, dir)
    execFileSync('git', ['init', '-q', dir])
    for (let at = 0; at < PATTERNS_EACH; at++) {
      const patterns = Array.from({ length: 1 + random.int(4) }, () => pattern(random))
      const { judge } = await openSelection(dir, { exclude: patterns, defaultExcludes: false })
      assert.deepEqual(ofSelection(judge, dir).sort(), ofGit(dir, patterns).sort(), JSON.stringify(patterns))
    }
  })
}
