/** What a search query or a field mask looks at. */
export interface Searchable {
  name: string
  mimeType: string
  parents: readonly string[]
  trashed: boolean
  appProperties?: Record<string, string>
}

export type Query = (file: Searchable) => boolean

/** Thrown for what is no query; the endpoint answers 400 with it. */
export class QueryError extends Error {}

/**
 * Compiles the `q` of files.list: the terms of "Search query terms and operators" that a store of files needs.
 * `name =` takes no notice of case: rclone found that the real one does not either, so a client has to compare again.
 * @param seeParent is called with each id that `in parents` names.
 * @throws QueryError
 */
export function parseQuery(text: string, seeParent: (id: string) => string): Query {
  const tokens = [...tokenize(text)]
  let at = 0
  const peek = () => tokens[at]
  const take = (expected?: string): string => {
    const token = tokens[at++]
    if (token === undefined || (expected !== undefined && token !== expected)) throw new QueryError(text)
    return token
  }
  const takeString = (): string => {
    const token = take()
    if (!token.startsWith("'")) throw new QueryError(text)
    return token.slice(1)
  }

  function parseOr(): Query {
    const options = [parseAnd()]
    while (peek() === 'or' && take()) options.push(parseAnd())
    return (file) => options.some((option) => option(file))
  }

  function parseAnd(): Query {
    const terms = [parseTerm()]
    while (peek() === 'and' && take()) terms.push(parseTerm())
    return (file) => terms.every((term) => term(file))
  }

  function parseTerm(): Query {
    if (peek() === 'not' && take()) {
      const term = parseTerm()
      return (file) => !term(file)
    }
    if (peek() === '(' && take()) {
      const inner = parseOr()
      take(')')
      return inner
    }
    if (peek()?.startsWith("'")) {
      const parent = seeParent(takeString())
      take('in')
      take('parents')
      return (file) => file.parents.includes(parent)
    }
    return parseComparison()
  }

  function parseComparison(): Query {
    const field = take()
    const operator = take()
    if (field === 'trashed' && operator === '=') {
      const wanted = take()
      if (wanted !== 'true' && wanted !== 'false') throw new QueryError(text)
      return (file) => file.trashed === (wanted === 'true')
    }
    const wanted = takeString()
    if (field === 'name' && operator === '=') return (file) => fold(file.name) === fold(wanted)
    if (field === 'mimeType' && operator === '=') return (file) => file.mimeType === wanted
    if (field === 'mimeType' && operator === '!=') return (file) => file.mimeType !== wanted
    throw new QueryError(text)
  }

  const query = parseOr()
  if (at !== tokens.length) throw new QueryError(text)
  return query
}

function fold(name: string): string {
  return name.normalize('NFC').toLowerCase()
}

/** Strings come with a quote in front, so that they are not taken for words. */
function* tokenize(text: string): Generator<string> {
  const pattern = /\s*(?:'((?:[^'\\]|\\['\\])*)'|(\w+)|(!=|[()=]))/y
  while (pattern.lastIndex < text.trimEnd().length) {
    const match = pattern.exec(text)
    if (!match) throw new QueryError(text)
    const [, string, word, sign] = match
    yield string === undefined ? (word ?? sign ?? '') : `'${string.replace(/\\(.)/g, '$1')}`
  }
}

/** The part of `value` that a field mask such as `nextPageToken,files(id,name)` asks for. */
export function selectFields(value: Record<string, unknown>, mask: string): Record<string, unknown> {
  const selected: Record<string, unknown> = {}
  for (const [, name = '', inner] of mask.matchAll(/([\w*]+)(?:\(([^()]*)\))?/g)) {
    if (name === '*') return value
    const found = value[name]
    if (found === undefined) continue
    const pick = (item: unknown) => (inner === undefined ? item : selectFields(item as Record<string, unknown>, inner))
    selected[name] = Array.isArray(found) ? found.map(pick) : pick(found)
  }
  return selected
}
