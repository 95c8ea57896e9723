import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openSelection } from '../../lib/exclude.ts'
import { faultSeeds } from '../support/fault-schedule.ts'
import { ofSelection, PLAIN, scatterNames } from '../support/odd-names.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { tempFolder } from '../support/tree.ts'

const PARTS = [...PLAIN, '*', '*', '?', '[ab]', '[!a]', '[^a-b]', '[a-c]*', '**', '\\a', '\\*', '\\#a', '\\!a', '\\\\']
const WORLDS = 12
const PATTERNS_EACH = 10

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
