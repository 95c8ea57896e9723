import { type Document, isAlias, isCollection, isMap, isScalar, isSeq, LineCounter, parseDocument, visit } from 'yaml'
import { BackupError } from '../errors.ts'

/** Where in a file: from 1. */
export interface Place {
  line: number
  column: number
}

export type Path = readonly (string | number)[]

export interface YamlFile {
  /** What it says, as plain values. */
  data: unknown
  /** Where a value is, or its key; where neither is there, the nearest that encloses it. */
  locate(path: Path, what: 'key' | 'value'): Place
}

/** How often anchors may be repeated in all; more is an attack, or a mistake. */
const MAX_ALIASES = 100

/** The library's messages repeat what stands in the file, and that may be a secret. */
const WORDS: Record<string, string> = {
  ALIAS_PROPS: 'an alias (*name) cannot have an anchor or a tag',
  BAD_ALIAS: 'an alias (*name) has no anchor (&name) before it. Text that begins with * belongs in quotes',
  BAD_DQ_ESCAPE: 'a backslash in double quotes begins no known escape. Use single quotes, or write it twice',
  BAD_INDENT: 'the indentation does not fit the lines above',
  BAD_SCALAR_START: 'text cannot begin with this character. Put it in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a mapping begins in the middle of a line. Put the text in quotes, or begin a new line',
  DUPLICATE_KEY: 'this key is there twice',
  KEY_OVER_1024_CHARS: 'a key is longer than 1,024 characters',
  MISSING_CHAR: 'a character is missing: a quote, bracket, comma or colon, or the space behind a colon',
  MULTILINE_IMPLICIT_KEY: 'a key reaches over several lines. Is a colon missing?',
  MULTIPLE_DOCS: 'a second document begins. One file is one document: take the --- out',
  NON_STRING_KEY: 'a key is not plain text',
  RESOURCE_EXHAUSTION: 'the file is nested too deeply',
  TAB_AS_INDENT: 'a tab stands where the indentation is. Use spaces',
  TAG_RESOLVE_FAILED: 'there is a tag (!name) that is not known. Put text that begins with ! in quotes',
  UNEXPECTED_TOKEN: 'something stands here that does not belong. Is a quote, a dash or a line end missing?',
}

/**
 * Reads YAML 1.2, with merge keys (`<<`).
 * @param label the file's name, for errors.
 * @throws BackupError USAGE, a line for each error, each with its place; no value of the file is repeated.
 */
export function readYaml(text: string, label: string): YamlFile {
  const lines = linesOf(text)
  const placeOf = (offset: number): Place => {
    const { line, col } = lines.linePos(Math.max(0, Math.min(offset, text.length)))
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const fail = (problems: readonly { offset: number; what: string }[]): BackupError => {
    const said = new Set<string>()
    for (const { offset, what } of problems) {
      const { line, column } = placeOf(offset)
      said.add(`${label}:${line}:${column} ${what}${what.endsWith('?') ? '' : '.'}`)
    }
    return new BackupError('USAGE', [...said])
  }
  let doc: Document.Parsed
  try {
    doc = parseDocument(text, {
      prettyErrors: false,
      stringKeys: true,
      merge: true,
      // Whatever a %YAML line says; and no tags for sets, dates and bytes, which would pass for mappings.
      schema: 'core',
      resolveKnownTags: false,
    })
  } catch (cause) {
    // A parser that runs out of stack is no bug of the caller's.
    throw new BackupError('USAGE', `${label} cannot be read as YAML: it is nested too deeply.`, { cause })
  }
  const all = [...doc.errors, ...doc.warnings]
  const first = all.find(({ code }) => code === 'RESOURCE_EXHAUSTION')
  const found = (first ? [first] : all).map(({ code, pos }) => ({
    offset: pos[0],
    what: WORDS[code] ?? 'this is not YAML',
  }))
  if (found.length > 0) throw fail(found)
  const bad: { offset: number; what: string }[] = []
  visit(doc, {
    Alias(_, alias) {
      if (!alias.resolve(doc)) bad.push({ offset: alias.range?.[0] ?? 0, what: WORDS.BAD_ALIAS as string })
    },
    Pair(_, { key, value }) {
      if (isMergeKey(key) && !isMergeable(value, doc)) {
        const isEmpty = isScalar(value) && value.value === null
        const offset = rangeOf(isEmpty ? key : value) ?? 0
        bad.push({
          offset,
          what: '<< takes what an anchor stands for that is a mapping (<<: *name), or a list of such',
        })
      }
      // Objects have it from birth, so whoever looks it up finds something else.
      if (isScalar(key) && key.value === '__proto__')
        bad.push({ offset: key.range?.[0] ?? 0, what: '__proto__ is not known' })
    },
  })
  if (bad.length > 0) throw fail(bad)
  if (doc.contents === null || (isScalar(doc.contents) && doc.contents.value === null)) {
    throw new BackupError('USAGE', `${label} is empty. \`millrace config example\` shows what a file looks like.`)
  }
  if (!isMap(doc.contents)) {
    throw new BackupError('USAGE', `${label}:1:1 the file must be a mapping: names with values, such as servers:.`)
  }
  let data: unknown
  try {
    data = doc.toJS({ maxAliasCount: MAX_ALIASES })
  } catch (cause) {
    throw new BackupError(
      'USAGE',
      `${label} repeats its anchors too often: aliases (*name) may stand for ${MAX_ALIASES} values at most.`,
      { cause },
    )
  }
  return { data, locate: (path, what) => placeOf(offsetOf(doc, path, what)) }
}

function isMergeKey(key: unknown): boolean {
  return isScalar(key) && key.type === 'PLAIN' && key.source === '<<'
}

function isMergeable(value: unknown, doc: Document.Parsed): boolean {
  const resolved = (one: unknown) => (isAlias(one) ? one.resolve(doc) : one)
  const source = resolved(value)
  // An alias that leads nowhere is told as that.
  const isMapping = (one: unknown) => resolved(one) === undefined || isMap(resolved(one))
  return isSeq(source) ? source.items.every(isMapping) : isMapping(value)
}

/** Not left to the parser, which does not count the line ends behind a token that it gives up at. */
function linesOf(text: string): LineCounter {
  const lines = new LineCounter()
  lines.addNewLine(0)
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) lines.addNewLine(at + 1)
  return lines
}

function offsetOf(doc: Document.Parsed, path: Path, what: 'key' | 'value'): number {
  let node: unknown = doc.contents
  let offset = 0
  for (const [at, step] of path.entries()) {
    const isLast = at === path.length - 1
    if (isAlias(node)) node = node.resolve(doc)
    let key: unknown
    if (isMap(node)) {
      const pair = node.items.find((one) => isScalar(one.key) && String(one.key.value) === String(step))
      if (!pair) return offset
      key = pair.key
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(step)]
    } else return offset
    const keyOffset = rangeOf(key)
    const hasValue = isCollection(node) || isAlias(node) || (isScalar(node) && node.value !== null)
    const wantsKey = !isLast || what === 'key' || !hasValue
    offset = (wantsKey ? (keyOffset ?? rangeOf(node)) : rangeOf(node)) ?? offset
  }
  return offset
}

function rangeOf(node: unknown): number | undefined {
  return (node as { range?: [number, number, number] | null } | undefined)?.range?.[0]
}
