// What docs/guides/config.md and docs/millrace.schema.json hold of the schema. `node test/support/config-guide.ts` brings
// both up to date; test/lib/config-docs.test.ts fails when they are not.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EXAMPLE } from '../../lib/config/example.ts'
import { configJsonSchema } from '../../lib/config/json-schema.ts'

interface Schema {
  type?: string
  const?: unknown
  enum?: unknown[]
  title?: string
  description?: string
  properties?: Record<string, Schema>
  additionalProperties?: Schema | boolean
  required?: string[]
  items?: Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
  minimum?: number
  maximum?: number
}

const ROOT = join(import.meta.dirname, '../..')
export const GUIDE = join(ROOT, 'docs/guides/config.md')
export const SCHEMA = join(ROOT, 'docs/millrace.schema.json')

/** The guide with its example and its tables as the code has them. */
export function guideOf(text: string): string {
  return replaced(replaced(text, 'example', `\`\`\`yaml\n${EXAMPLE}\`\`\``), 'fields', fieldTables())
}

function replaced(text: string, name: string, content: string): string {
  const [begin, end] = [`<!-- ${name}: from the code -->`, `<!-- ${name}: end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`The guide has no place for its ${name}.`)
  return `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`
}

/** A table for each mapping of the schema. */
export function fieldTables(): string {
  const schema = configJsonSchema() as Schema
  const tables: string[] = []
  const add = (title: string, node: Schema) => {
    const inner: [string, Schema][] = []
    const rows = Object.entries(node.properties ?? {}).map(([name, one]) => {
      for (const [suffix, mapping] of mappingsOf(one))
        inner.push([`${title === '' ? '' : `${title}.`}${name}${suffix}`, mapping])
      const isNeeded = node.required?.includes(name) ? ' **needed**' : ''
      return `| \`${name}\` | ${typeOf(one)}${isNeeded} | ${descriptionOf(one)} |`
    })
    tables.push(
      [
        `### ${title === '' ? 'The file' : `\`${title}\``}`,
        '',
        '| field | what it is | |',
        '|---|---|---|',
        ...rows,
      ].join('\n'),
    )
    // `defaults` has what servers have, and is told in a sentence.
    for (const [name, mapping] of inner) if (!name.startsWith('defaults')) add(name, mapping)
  }
  add('', schema)
  return tables.join('\n\n')
}

/** The mappings with fields that a value can be, each with what is put behind its name. */
function mappingsOf(node: Schema): [string, Schema][] {
  const found: [string, Schema][] = []
  const choices = node.anyOf ?? node.oneOf
  if (choices) {
    for (const one of choices) {
      for (const [suffix, mapping] of mappingsOf(one)) {
        const tag = Object.entries(mapping.properties ?? {}).find(([, value]) => value.const !== undefined)
        found.push([tag && node.oneOf ? `${suffix} (${tag[0]}: ${tag[1].const})` : suffix, mapping])
      }
    }
    return found
  }
  if (node.properties) return [['', node]]
  if (typeof node.additionalProperties === 'object') {
    return mappingsOf(node.additionalProperties).map(([suffix, mapping]) => [`.NAME${suffix}`, mapping])
  }
  return []
}

function typeOf(node: Schema): string {
  const choices = node.anyOf ?? node.oneOf
  if (choices) return [...new Set(choices.map(typeOf))].join(' or ')
  if (node.const !== undefined) return `\`${node.const}\``
  if (node.enum) return node.enum.map((one) => `\`${one}\``).join(', ')
  if (node.type === 'array') return `list of ${typeOf(node.items as Schema)}`
  if (node.type === 'object') return 'mapping'
  if (node.type === 'boolean') return '`true`, `false`'
  if (node.type === 'integer') {
    const { minimum = 0, maximum = Number.MAX_SAFE_INTEGER } = node
    return maximum === Number.MAX_SAFE_INTEGER ? `number, ${minimum} or more` : `number, ${minimum} to ${maximum}`
  }
  return node.type === 'number' ? 'number' : 'text'
}

function descriptionOf({ description, items, anyOf }: Schema): string {
  return (description ?? items?.description ?? anyOf?.[0]?.description ?? '').replaceAll('|', '\\|')
}

if (import.meta.main) {
  writeFileSync(GUIDE, guideOf(readFileSync(GUIDE, 'utf8')))
  writeFileSync(SCHEMA, `${JSON.stringify(configJsonSchema(), null, 2)}\n`)
}
