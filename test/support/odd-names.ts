import fs from 'node:fs'
import { join } from 'node:path'
import type { Selection } from '../../lib/exclude.ts'
import type { Random } from './random.ts'

export const PLAIN = ['a', 'b', 'ab', 'a.b', '.a', 'a b', 'A', '{a}', '(a)', 'a+', '@a', '~', '^a', '$', 'a|b', '-']
/** Names with all that a pattern gives a meaning to. `?` is a character here and a byte to git, so these are ASCII. */
export const NAMES = [...PLAIN, '!a', '#a', 'a*', 'x[1]', 'a\\b', 'new\nline', 'a]']

/** Makes folders and empty files of these names. */
export function scatterNames(random: Random, dir: string): void {
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

/** The files of a folder that are backed up, going into no folder that is left out; not git's own. */
export function ofSelection(judge: Selection['judge'], dir: string, prefix = ''): string[] {
  return fs.readdirSync(join(dir, prefix), { withFileTypes: true }).flatMap((entry) => {
    const path = prefix + entry.name
    if (path === '.git' || judge(path, entry.isDirectory())) return []
    return entry.isDirectory() ? ofSelection(judge, dir, `${path}/`) : [path]
  })
}
