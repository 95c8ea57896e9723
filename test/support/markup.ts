/** One element or attribute of a page. */
export interface Tag {
  name: string
  attributes: Map<string, string>
}

const NAME = '[A-Za-z_][A-Za-z0-9_.:-]*'
const TOKEN = new RegExp(`<!DOCTYPE html>|<(/?)(${NAME})((?:\\s+${NAME}="[^"<]*")*)\\s*(/?)>|[^<]+`, 'gy')
const ENTITY = /&(?!(?:amp|lt|gt|quot|#39);)/

/**
 * Reads a page as strictly as XML is read: every element is closed in its order, every attribute is quoted and there
 * once, every `<` and `&` of the text is escaped. The content of `style` is taken as it is.
 * @throws Error where it is not so.
 */
export function parseMarkup(text: string): { tags: Tag[]; texts: string[] } {
  const tags: Tag[] = []
  const texts: string[] = []
  const open: string[] = []
  let at = 0
  while (at < text.length) {
    TOKEN.lastIndex = at
    const found = TOKEN.exec(text)
    if (!found) throw new Error(`Neither text nor a tag: ${text.slice(at, at + 80)}`)
    at = TOKEN.lastIndex
    const [all, closing, name, attributes = '', empty] = found
    if (all === '<!DOCTYPE html>') continue
    if (name === undefined) {
      if (open.length === 0 && all.trim() !== '') throw new Error(`Text outside of all elements: ${all}`)
      if (open.at(-1) !== 'style' && ENTITY.test(all)) throw new Error(`A bare & in: ${all}`)
      texts.push(all)
    } else if (closing) {
      const expected = open.pop()
      if (expected !== name) throw new Error(`</${name}> closes <${expected}>`)
    } else {
      tags.push({ name, attributes: attributesOf(attributes) })
      if (!empty) open.push(name)
    }
  }
  if (open.length > 0) throw new Error(`<${open.at(-1)}> is not closed`)
  return { tags, texts }
}

function attributesOf(text: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const [, name, value] of text.matchAll(new RegExp(`(${NAME})="([^"]*)"`, 'g'))) {
    if (found.has(name as string)) throw new Error(`The attribute ${name} is there twice`)
    if (ENTITY.test(value as string)) throw new Error(`A bare & in ${name}="${value}"`)
    found.set(name as string, value as string)
  }
  return found
}
