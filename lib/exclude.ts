import { constants } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import picomatch from 'picomatch'
import { BackupError } from './errors.ts'
import type { OwnFolder } from './kept.ts'
import { checkPatterns, GLOB_OPTIONS, isPlain, matchPaths, withLiterals } from './select.ts'

/*
 * What of a folder is backed up. The patterns are a subset of .gitignore's, told in docs/guides/live-worlds.md: one a
 * line, `#` begins a comment, `!` takes back in, a slash at the end means folders only, a slash anywhere else binds the
 * pattern to the source's root, `*`, `?` and `[a-z]` stay within a name, `**` does not. The last pattern that matches
 * decides. A folder that is left out is not looked into, so nothing in it can be taken back in.
 */

export const IGNORE_FILE = '.millraceignore'
const IGNORE_MAX_BYTES = 1024 * 1024

/** Why something is left out. */
export interface LeftOut {
  /** Relative to the source's root; a folder stands for all in it. */
  path: string
  folder: boolean
  /** The pattern that decided, as it was written; `include` when no include pattern takes it. */
  pattern: string
  /**
   * Where the pattern is from: `.millraceignore:3`, `exclude`, `include`, the game whose default it is, or, of what is
   * the backup's own, `destination` for a store in the source and `state` for a folder of state or journals.
   */
  origin: string
}

/** A pattern, and where it is from: see {@link LeftOut}. */
interface Pattern {
  pattern: string
  origin: string
}

/** What a {@link Selection} is made of; nothing but data, so that a thread can make the same. */
export interface SelectionRules {
  game: string | null
  patterns: Pattern[]
  include?: readonly string[] | undefined
}

interface Rule extends Pattern {
  /** Its place among all: the last that matches decides. */
  at: number
  negated: boolean
  folderOnly: boolean
  /** Whether it is bound to the source's root; else it is of names, at any depth. */
  anchored: boolean
  /** What it names, where nothing in it has a meaning to a glob. */
  plain: string | undefined
  matches: (path: string) => boolean
}

/** What of a folder is backed up. */
export interface SelectionOptions {
  /** Only what these globs take: as those of a restore. A folder's name takes all beneath it. */
  include?: readonly string[] | undefined
  /** Patterns as in .millraceignore, which come after it and so have the last word. */
  exclude?: readonly string[] | undefined
  /** false: nothing is left out by default; see `GAME_DEFAULTS`. */
  defaultExcludes?: boolean | undefined
}

/** What of one folder is backed up. */
export interface Selection {
  /** The game that the folder was recognised as, whose defaults count; null for none, or when they are turned off. */
  game: string | null
  /** Whether anything could be left out at all. */
  any: boolean
  /** Gives the same selection to `selectionOf`. */
  rules: SelectionRules
  /** Why something is left out, or undefined when it is backed up. */
  judge(path: string, isFolder: boolean): LeftOut | undefined
  /** The include patterns that have taken nothing of what was judged. */
  unused(): string[]
}

/** A kind of folder that is known, and what in it is made anew by its game and of no use in a backup. */
export interface GameDefaults {
  game: string
  exclude: readonly string[]
  /** Whether a folder is one, by the names in its root. */
  recognise(folder: string, names: ReadonlySet<string>): Promise<boolean> | boolean
}

/** What is left out by default, and only where the folder is what its files say it is. The first that fits counts. */
export const GAME_DEFAULTS: readonly GameDefaults[] = [
  {
    game: 'Minecraft world',
    // The running server's lock: three bytes, written anew at each start.
    exclude: ['/session.lock'],
    recognise: (_folder, names) => names.has('level.dat'),
  },
  {
    game: 'Minecraft server',
    // cache/ is what the server's jar downloads; logs/ change all the time and hold the players' addresses.
    exclude: ['/*/session.lock', '/logs/', '/cache/'],
    recognise: async (folder, names) => names.has('server.properties') && (await hasWorld(folder, names)),
  },
]

async function hasWorld(folder: string, names: ReadonlySet<string>): Promise<boolean> {
  for (const name of names) if (await exists(join(folder, name, 'level.dat'))) return true
  return false
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/**
 * Reads what of a folder is to be backed up: the defaults of its game, its `.millraceignore`, then the options.
 * @param own what in it is the backup's own, which is left out unless a pattern takes it back in.
 * @throws BackupError USAGE for a pattern that cannot be used and for patterns that are no list, SOURCE when the ignore file is there and cannot be read.
 */
export async function openSelection(
  folder: string,
  options: SelectionOptions,
  own: readonly OwnFolder[] = [],
): Promise<Selection> {
  const { include, defaultExcludes = true } = options
  checkPatterns(include, 'include')
  checkPatterns(options.exclude, 'exclude')
  const exclude = options.exclude ?? []
  const game = defaultExcludes ? await recogniseGame(folder) : undefined
  const patterns = [
    ...own.map(({ path, origin }) => ({ pattern: `/${escapePattern(path)}/`, origin })),
    ...(game?.exclude ?? []).map((pattern) => ({ pattern, origin: game?.game as string })),
    ...(await readIgnoreFile(folder)),
    ...exclude.map((pattern) => ({ pattern, origin: 'exclude' })),
  ]
  return selectionOf({ game: game?.game ?? null, patterns, include })
}

/** @throws BackupError USAGE for a pattern that cannot be used. */
export function selectionOf(rules: SelectionRules): Selection {
  const { game, patterns, include } = rules
  const parsed = patterns.map(parseRule).filter((rule) => rule !== undefined)
  const lastOf = lastMatching(parsed)
  const included = include && matchPaths(include)
  const isOnTheWay = includeWays(include ?? [])
  return {
    game,
    any: parsed.length > 0 || included !== undefined,
    rules,
    judge(path, isFolder) {
      const rule = lastOf(path, isFolder)
      if (rule && !rule.negated) return { path, folder: isFolder, pattern: rule.pattern, origin: rule.origin }
      if (included && !included.takes(path) && !(isFolder && isOnTheWay(path)))
        return { path, folder: isFolder, pattern: 'include', origin: 'include' }
      return undefined
    },
    unused: () => included?.unused() ?? [],
  }
}

/**
 * Finds the last rule that matches. Those that name something are looked up, and only globs are tried one by one: a list
 * may have thousands of names, and is asked about each name in the source.
 */
function lastMatching(rules: readonly Rule[]): (path: string, isFolder: boolean) => Rule | undefined {
  const globs = rules.filter(({ plain }) => plain === undefined)
  const named = rules.filter(({ plain }) => plain !== undefined)
  const byPath = Map.groupBy(
    named.filter(({ anchored }) => anchored),
    ({ plain }) => plain as string,
  )
  const byName = Map.groupBy(
    named.filter(({ anchored }) => !anchored),
    ({ plain }) => plain as string,
  )
  return (path, isFolder) => {
    const counts = ({ folderOnly }: Rule) => isFolder || !folderOnly
    const ofPath = byPath.get(path)?.findLast(counts)
    const ofName = byName.get(path.slice(path.lastIndexOf('/') + 1))?.findLast(counts)
    const last = (ofPath?.at ?? -1) > (ofName?.at ?? -1) ? ofPath : ofName
    for (let i = globs.length - 1; i >= 0; i--) {
      const glob = globs[i] as Rule
      if (glob.at < (last?.at ?? -1)) break
      if (counts(glob) && glob.matches(path)) return glob
    }
    return last
  }
}

/** A path as a pattern that means just it. */
function escapePattern(path: string): string {
  return path.replace(/[\\*?[\]{}()|+@!#]|\s$/g, '\\$&')
}

async function recogniseGame(folder: string): Promise<GameDefaults | undefined> {
  const names = new Set(await readdir(folder).catch(() => []))
  for (const one of GAME_DEFAULTS) if (await one.recognise(folder, names)) return one
  return undefined
}

async function readIgnoreFile(folder: string): Promise<Pattern[]> {
  const file = join(folder, IGNORE_FILE)
  let bytes: Buffer
  try {
    // A fifo in its place would wait for somebody who writes to it.
    const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    try {
      const found = await handle.stat()
      if (!found.isFile()) throw new BackupError('SOURCE', `${file} is no file.`)
      if (found.size > IGNORE_MAX_BYTES) {
        throw new BackupError('SOURCE', `${file} is larger than 1 MiB: it is no list of patterns.`)
      }
      bytes = await handle.readFile()
    } finally {
      await handle.close()
    }
  } catch (cause) {
    if (cause instanceof BackupError) throw cause
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return []
    // Going on without it would back up what was to be left out.
    throw new BackupError('SOURCE', `${file} cannot be read: ${(cause as Error).message}.`, { cause })
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new BackupError('SOURCE', `${file} is not UTF-8 text.`, { cause })
  }
  return text.split(/\r?\n/).map((pattern, at) => ({ pattern, origin: `${IGNORE_FILE}:${at + 1}` }))
}

/** One line; undefined for an empty one and for a comment. */
function parseRule({ pattern: line, origin }: Pattern, at: number): Rule | undefined {
  // A space at the end counts only behind a backslash, as git has it.
  const pattern = line.replace(/(?<!\\)\s+$/, '')
  if (pattern === '' || pattern.startsWith('#')) return undefined
  const negated = pattern.startsWith('!')
  let glob = negated ? pattern.slice(1) : pattern
  const folderOnly = glob.endsWith('/')
  glob = glob.replace(/\/+$/, '')
  const anchored = glob.includes('/')
  glob = glob.replace(/^\/+/, '')
  if (glob === '' || glob.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw new BackupError(
      'USAGE',
      `The pattern ${JSON.stringify(pattern)} (${origin}) matches nothing: give names relative to the source, without empty parts, "." or "..".`,
    )
  }
  const plain = isPlain(glob) ? glob : undefined
  // All in a folder is not the folder itself.
  if (glob.endsWith('/**')) glob += '/*'
  // Told to leave braces alone, picomatch still hands them to its regular expression.
  glob = glob.replace(/\\.|[{}()|+@]/g, (found) => (found.length > 1 ? found : `\\${found}`))
  const matches = plain === undefined ? picomatch(anchored ? glob : `**/${glob}`, IGNORE_OPTIONS) : () => false
  return { pattern, origin, at, negated, folderOnly, anchored, plain, matches }
}

/** git knows no braces, no `+(…)` and no `!` within. */
const IGNORE_OPTIONS = { ...GLOB_OPTIONS, nobrace: true, noextglob: true, strictSlashes: true } as const

/** Whether a folder is on the way to what the globs take. */
function includeWays(include: readonly string[]): (path: string) => boolean {
  const ways = include.map((pattern) => {
    const clean = pattern.replace(/^(\.\/)+/, '').replace(/\/+$/, '')
    const parts = clean.split('/')
    const globs = withLiterals(clean).split('/')
    // Braces and the like may reach over a slash: then every folder may be on the way.
    if (/[{(]/.test(pattern)) return () => true
    return (path: string) => {
      const names = path.split('/')
      for (const [at, name] of names.entries()) {
        const part = parts[at]
        if (part === undefined) return false
        if (part === '**') return true
        if (part !== name && !picomatch.isMatch(name, globs[at] as string, GLOB_OPTIONS)) return false
      }
      return names.length < parts.length
    }
  })
  return (path) => ways.some((leads) => leads(path))
}
