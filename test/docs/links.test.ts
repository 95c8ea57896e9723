import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { describe, it } from 'node:test'
import { DOCUMENTS, ROOT, readDocument } from './markdown.ts'

const documents = new Map(DOCUMENTS.map((path) => [path, readDocument(path)]))

describe('the documents', () => {
  it('link only to files that are there, and to headings that are in them', () => {
    const broken: string[] = []
    for (const { path, links } of documents.values()) {
      for (const { target, line } of links) {
        if (/^(?:https?|mailto):/.test(target)) continue
        const [file = '', anchor] = target.split('#')
        const found = file === '' ? path : relative(ROOT, join(ROOT, dirname(path), file))
        if (!existsSync(join(ROOT, found))) broken.push(`${path}:${line}: ${target} is not there`)
        else if (anchor !== undefined && !documents.get(found)?.anchors.has(anchor)) {
          broken.push(`${path}:${line}: ${found} has no heading for #${anchor}`)
        }
      }
    }
    assert.deepEqual(broken, [])
  })

  it('have every guide in the index', () => {
    const index = readFileSync(join(ROOT, 'docs/README.md'), 'utf8')
    const folders = ['docs/guides/', 'docs/providers/']
    const guides = DOCUMENTS.filter((path) => folders.some((folder) => path.startsWith(folder)))
    assert.ok(guides.length >= 10)
    assert.deepEqual(
      guides.filter((path) => !index.includes(basename(path))),
      [],
    )
  })
})
