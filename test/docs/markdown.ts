import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import GithubSlugger from 'github-slugger'
import MarkdownIt from 'markdown-it'

export const ROOT = join(import.meta.dirname, '../..')

/** Every document that people read, by its path from the root. */
export const DOCUMENTS = globSync(['*.md', 'docs/**/*.md', 'transforms/*.md'], { cwd: ROOT })
  .filter((path) => !path.startsWith('docs/api/'))
  .sort()

export interface Block {
  document: string
  /** Of its first line of content, from 1. */
  line: number
  language: string
  text: string
  /** What the HTML comment right above it says: `run`, `check`, `from`. */
  marker: string | undefined
  /** What stands after the marker's colon. */
  note: string
}

export interface Document {
  path: string
  blocks: Block[]
  /** Where links and pictures go, as they are written. */
  links: { target: string; line: number }[]
  /** As GitHub makes them of headings. */
  anchors: Set<string>
  /** What stands in backquotes. */
  spans: { text: string; line: number }[]
}

const MARKER = /^<!-- (run|check|from)(?:: (.+?))? -->\s*$/

/** Takes a document apart. @param path from the root. */
export function readDocument(path: string): Document {
  const document: Document = { path, blocks: [], links: [], anchors: new Set(), spans: [] }
  const tokens = new MarkdownIt({ html: true }).parse(readFileSync(join(ROOT, path), 'utf8'), {})
  const slugger = new GithubSlugger()
  for (const [index, token] of tokens.entries()) {
    const line = (token.map?.[0] ?? 0) + 1
    if (token.type === 'fence' || token.type === 'code_block') {
      const before = tokens[index - 1]
      const [, marker, note = ''] = (before?.type === 'html_block' && MARKER.exec(before.content)) || []
      const language = token.type === 'fence' ? token.info.trim() : 'indented'
      document.blocks.push({ document: path, line: line + 1, language, text: token.content, marker, note })
    }
    for (const child of token.type === 'inline' ? (token.children ?? []) : []) {
      const target = child.attrGet('href') ?? child.attrGet('src')
      if (target !== null) document.links.push({ target: decodeURIComponent(target), line })
      if (child.type === 'code_inline') document.spans.push({ text: child.content, line })
    }
    if (token.type === 'heading_open') document.anchors.add(slugger.slug(plainText(tokens[index + 1])))
    if (token.type === 'html_block') {
      for (const [, target = ''] of token.content.matchAll(/(?:src|href)="([^"]+)"/g))
        document.links.push({ target, line })
    }
  }
  return document
}

function plainText(token: ReturnType<MarkdownIt['parse']>[number] | undefined): string {
  return (token?.children ?? []).map((child) => child.content).join('')
}

/** The path of each thing that the package exports, to the source that it is built from. */
export function exportedSources(): Map<string, string> {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const found = new Map<string, string>()
  for (const [name, target] of Object.entries<{ default: string } | string>(exports)) {
    if (typeof target === 'string') continue
    found.set(join('millrace', name), join(ROOT, target.default.replace('dist/', '').replace(/\.js$/, '.ts')))
  }
  return found
}

/** A block of TypeScript with its imports of the package turned into imports of the sources. */
export function withSources(text: string): string {
  const sources = exportedSources()
  return text.replaceAll(/(from |import\()'(millrace[^']*)'/g, (whole, how, name) => {
    const source = sources.get(name)
    return source === undefined ? whole : `${how}'${source}'`
  })
}
