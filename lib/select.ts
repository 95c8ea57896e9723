import picomatch from 'picomatch'
import type { IndexEntry, Seekable } from '../transforms/index.ts'
import type { ArchiveWarning } from './archive/entry.ts'
import { BackupError } from './errors.ts'

/**
 * For picomatch: names that begin with a dot are like others, and so are those with a line break in them; `[!a]` is
 * any character but an a, and not one of the two; a `!` in front is the name's own.
 */
export const GLOB_OPTIONS = { dot: true, flags: 's', posix: true, nonegate: true } as const

/** Whether a glob means just what it says: letters of any script, digits, and what stands in names without a meaning. */
export function isPlain(glob: string): boolean {
  return /^[\p{L}\p{M}\p{N} _./-]+$/u.test(glob)
}

/**
 * A glob in which only what its readers are told of has a meaning: parentheses and bars of no `@(…)` and its like, as in
 * `world (1)`, and a brace that nothing closes stand for themselves. picomatch hands them to its regular expression.
 */
export function withLiterals(glob: string): string {
  const parts: string[] = glob.match(/\\.|\[[!^]?\]?[^\]]*\]|[@!*+?]\(|./gs) ?? []
  const groups: { at: number; isPlain: boolean; bars: number[] }[] = []
  const braces: number[] = []
  const quote = (at: number) => {
    parts[at] = (parts[at] as string).replace(/.$/s, '\\$&')
  }
  for (const [at, part] of parts.entries()) {
    if (part === '(' || /^[@!*+?]\($/.test(part)) groups.push({ at, isPlain: part === '(', bars: [] })
    else if (part === '{') braces.push(at)
    else if (part === '}') braces.pop()
    else if (part === '|' && groups.at(-1)?.isPlain === false) groups.at(-1)?.bars.push(at)
    else if (part === '|') quote(at)
    else if (part === ')') {
      const group = groups.pop()
      if (!group || group.isPlain) quote(at)
      if (group?.isPlain) quote(group.at)
    }
  }
  for (const at of [...braces, ...groups.flatMap((group) => [group.at, ...group.bars])]) quote(at)
  return parts.join('')
}

/** Globs as one test of paths. */
export interface PathMatcher {
  takes(path: string): boolean
  /** The patterns that none of the paths asked about was of. */
  unused(): string[]
}

/**
 * Holds what a program without types has given to a list.
 * @throws BackupError USAGE for what is no array of texts.
 */
export function checkPatterns(patterns: unknown, name: 'include' | 'exclude'): void {
  if (patterns === undefined || patterns === null) return
  if (Array.isArray(patterns) && patterns.every((one) => typeof one === 'string')) return
  throw new BackupError('USAGE', `${name} has to be an array of patterns, each of them text.`)
}

/**
 * Makes a test of paths from globs. A pattern that names a folder takes all beneath it; `*` does not cross a slash and
 * takes names that begin with a dot too.
 * @throws BackupError USAGE for an empty or absolute pattern.
 */
export function matchPaths(patterns: readonly string[]): PathMatcher {
  const tests = patterns.map((pattern) => {
    const clean = pattern.replace(/^(\.\/)+/, '').replace(/\/+$/, '')
    if (clean === '' || clean.startsWith('/')) {
      throw new BackupError(
        'USAGE',
        `The pattern ${JSON.stringify(pattern)} selects nothing. Patterns are relative to the folder that was backed up.`,
      )
    }
    const meant = withLiterals(clean)
    const glob = isPlain(clean) ? () => false : picomatch([meant, `${meant}/**`], GLOB_OPTIONS)
    return { pattern, clean, glob, isPlain: isPlain(clean) }
  })
  // A name may hold what a glob gives a meaning to: taken as it stands, it still names itself. Names are looked up, and
  // only globs are tried one by one.
  const named = Map.groupBy(tests, ({ clean }) => clean)
  const globs = tests.filter((test) => !test.isPlain)
  const unused = new Set(tests)
  return {
    takes(path) {
      let isTaken = false
      for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
        const found = named.get(path.slice(0, end))
        if (!found) continue
        isTaken = true
        for (const test of found) unused.delete(test)
      }
      for (const test of globs) {
        if (isTaken && !unused.has(test)) continue
        if (!test.glob(path)) continue
        isTaken = true
        unused.delete(test)
      }
      return isTaken
    },
    unused: () => [...unused].map(({ pattern }) => pattern),
  }
}

/** What there is to say of a pattern that takes nothing. */
export function unusedWarning(pattern: string, where: string): ArchiveWarning {
  return {
    kind: 'pattern',
    path: pattern,
    message: `Nothing in ${where} matches the pattern ${JSON.stringify(pattern)}`,
  }
}

/**
 * Picks the entries that patterns select, and the folders they are in, for their modes and times. Of several entries of
 * one path the last is picked. Holds only what it picks.
 * @returns the entries in stream order, the patterns' own number of files, and the patterns that match nothing. What hard
 * links share with a file that no pattern selects has the name of the first of them.
 * @throws BackupError USAGE when nothing matches; TransformError from the index.
 */
export async function selectEntries(
  seekable: Seekable,
  patterns: readonly string[],
): Promise<{ entries: IndexEntry[]; files: number; unused: string[] }> {
  const { takes: matches, unused } = matchPaths(patterns)
  const picked = new Map<string, IndexEntry>()
  // A folder's entries follow it, so those that a path is in are known when it comes.
  const within: IndexEntry[] = []
  for await (const entry of seekable.entries()) {
    while (within.length > 0 && !isIn(entry.path, within.at(-1) as IndexEntry)) within.pop()
    if (entry.type === 'dir') within.push(entry)
    if (!matches(entry.path)) continue
    for (const folder of within) if (!picked.has(folder.path)) picked.set(folder.path, folder)
    picked.set(entry.path, entry)
  }
  if (picked.size === 0) {
    throw new BackupError(
      'USAGE',
      `Nothing in the snapshot matches ${patterns.map((one) => JSON.stringify(one)).join(', ')}. \`millrace inspect --files\` shows what is in it.`,
    )
  }
  const nothing = unused()
  const files = [...picked.values()].filter(
    ({ path, type }) => (type === 'file' || type === 'link') && matches(path),
  ).length
  const shared = await find(seekable, linksOut(picked))
  const entries = shared.size > 0 ? handDown(picked, shared) : picked
  // A folder may have no entry of its own: it is made without one.
  for (const [path, folder] of await find(seekable, foldersOut(entries))) entries.set(path, folder)
  return { entries: [...entries.values()].sort((a, b) => a.at - b.at), files, unused: nothing }
}

/** The last entry of each of some paths. */
async function find(seekable: Seekable, paths: ReadonlySet<string>): Promise<Map<string, IndexEntry>> {
  const found = new Map<string, IndexEntry>()
  if (paths.size === 0) return found
  for await (const entry of seekable.entries()) if (paths.has(entry.path)) found.set(entry.path, entry)
  return found
}

/**
 * Gives what hard links share with a file that was not picked the name of the first of them: under its own name it would
 * be restored unasked, and a merge would put it over a file that is to stay.
 */
function handDown(picked: ReadonlyMap<string, IndexEntry>, shared: ReadonlyMap<string, IndexEntry>) {
  const entries = new Map<string, IndexEntry>()
  const heirs = new Map<string, string>()
  for (const entry of [...picked.values()].sort((a, b) => a.at - b.at)) {
    const { path, link = '' } = entry
    const file = entry.type === 'link' ? shared.get(link) : undefined
    const heir = heirs.get(link)
    if (file === undefined) entries.set(path, entry)
    else if (heir !== undefined) entries.set(path, { ...entry, link: heir })
    else {
      heirs.set(link, path)
      entries.set(path, { ...file, path })
    }
  }
  return entries
}

function isIn(path: string, folder: IndexEntry): boolean {
  return path.startsWith(`${folder.path}/`)
}

/** What links lead to that is not there. */
function linksOut(picked: ReadonlyMap<string, IndexEntry>): Set<string> {
  const out = new Set<string>()
  for (const { type, link } of picked.values()) {
    if (type === 'link' && link !== undefined && !picked.has(link)) out.add(link)
  }
  return out
}

/** The folders of entries that are not there. */
function foldersOut(picked: ReadonlyMap<string, IndexEntry>): Set<string> {
  const out = new Set<string>()
  for (const path of picked.keys()) {
    for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
      const folder = path.slice(0, slash)
      if (!picked.has(folder)) out.add(folder)
    }
  }
  return out
}

/**
 * Finds one entry: the last of that path.
 * @throws BackupError USAGE when there is none.
 */
export async function findEntry(seekable: Seekable, path: string): Promise<IndexEntry> {
  const clean = path.replace(/^(\.\/)+/, '').replace(/\/+$/, '')
  let found: IndexEntry | undefined
  for await (const entry of seekable.entries()) if (entry.path === clean) found = entry
  if (!found)
    throw new BackupError(
      'USAGE',
      `There is no ${JSON.stringify(path)} in the snapshot. \`millrace inspect --files\` shows what is in it.`,
    )
  return found
}
