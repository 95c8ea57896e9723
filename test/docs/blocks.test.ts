import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parse as parseYaml } from 'yaml'
import { configSchema } from '../../lib/config/schema.ts'
import { tempFolder } from '../support/tree.ts'
import { allCommands, allOptions, invocations, refusal } from './commands.ts'
import { type Block, DOCUMENTS, exportedSources, ROOT, readDocument, withSources } from './markdown.ts'

const documents = DOCUMENTS.map(readDocument)
const blocks = documents.flatMap((document) => document.blocks)
const of = (...languages: string[]) => blocks.filter(({ language }) => languages.includes(language))
const placeOf = ({ document, line }: Block) => `${document}:${line}`

/** What a block of TypeScript may use without saying where it comes from. */
const GIVEN: Record<string, string> = {
  backups: "import('millrace').Backups",
  storage: "import('millrace/adapters').Storage",
  password: 'string',
  lines: 'AsyncIterable<string>',
  keyId: 'string',
  applicationKey: 'string',
}

/** Written by the command itself, whose tests follow it. */
const GENERATED = new Set(['docs/guides/recovery-sheet-sample.md'])

/** Where excerpts may come from without saying so. */
const excerpts = globSync(['examples/*.ts', 'test/examples/*.ts'], { cwd: ROOT }).map((path) =>
  readFileSync(join(ROOT, path), 'utf8'),
)

describe('the code blocks of the documents', () => {
  it('say what they are, and how they are tested', () => {
    const wrong: string[] = []
    for (const block of blocks) {
      const { language, marker, note } = block
      if (!/^(|sh|ts|json|yaml|ini|crontab|python|text|xml)$/.test(language)) {
        wrong.push(`${placeOf(block)}: the language ${JSON.stringify(language)} is not known here`)
      }
      if (language === 'sh' && marker === undefined && !GENERATED.has(block.document)) {
        wrong.push(`${placeOf(block)}: put <!-- run --> or <!-- check: why it cannot be run --> above it`)
      }
      if (marker === 'check' && note === '') wrong.push(`${placeOf(block)}: <!-- check --> has to say why`)
    }
    assert.equal(wrong.join('\n'), '')
  })

  it('call millrace with options that it has', async () => {
    const wrong: string[] = []
    let calls = 0
    for (const block of of('sh', 'ini', 'crontab', 'yaml', '')) {
      for (const args of invocations(block.text)) {
        calls += 1
        const refused = await refusal(args)
        if (refused !== undefined) wrong.push(`${placeOf(block)}: millrace ${args.join(' ')}: ${refused}`)
      }
    }
    assert.equal(wrong.join('\n'), '')
    assert.ok(calls >= 20, `only ${calls} calls were found`)
  })

  it('are JSON and YAML where they say so, and a config that is taken where they are one', () => {
    for (const block of of('json').filter(({ marker }) => marker !== 'check')) {
      const lines = block.text.startsWith('{"') ? block.text.trim().split('\n') : [block.text]
      for (const line of lines) assert.doesNotThrow(() => JSON.parse(line), `${placeOf(block)}: ${line}`)
    }
    for (const block of of('yaml').filter(({ marker }) => marker !== 'check')) {
      const found: unknown = parseYaml(block.text)
      if (typeof found !== 'object' || found === null || !('servers' in found && 'destinations' in found)) continue
      const parsed = configSchema.safeParse(found)
      assert.ok(parsed.success, `${placeOf(block)}: ${parsed.error?.message}`)
    }
  })

  it('hold TypeScript that compiles, or stands in the file that they name', (t) => {
    const folder = tempFolder(t)
    const files: string[] = []
    for (const block of of('ts')) {
      const { marker, note, text } = block
      if (marker === 'from') {
        assert.ok(readFileSync(join(ROOT, note), 'utf8').includes(text), `${placeOf(block)} is not in ${note}`)
      } else if (!excerpts.some((source) => source.includes(text))) {
        const given = Object.entries(GIVEN).filter(
          ([name]) => new RegExp(`\\b${name}\\b`).test(text) && !new RegExp(`(?:const|let) ${name}\\b`).test(text),
        )
        const declared = given.map(([name, type]) => `declare const ${name}: ${inSources(type)}`)
        const file = `${block.document.replaceAll('/', '_')}-${block.line}.ts`
        writeFileSync(join(folder, file), [withSources(text), 'export {}', ...declared].join('\n'))
        files.push(file)
      }
    }
    assert.ok(files.length >= 3)
    mkdirSync(join(folder, 'node_modules'))
    const options = { noUnusedLocals: false, allowImportingTsExtensions: true, rewriteRelativeImportExtensions: false }
    const compilerOptions = { ...options, typeRoots: [join(ROOT, 'node_modules/@types')] }
    const config = { extends: join(ROOT, 'tsconfig.json'), compilerOptions, include: ['*.ts'] }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8', cwd: folder })
    assert.equal(status, 0, stdout)
  })
})

describe('what stands in backquotes in the documents', () => {
  const options = allOptions()
  const commands = allCommands()

  it('names commands and options that millrace has', () => {
    const wrong: string[] = []
    // Decisions speak of what other programs can do.
    for (const { path, spans } of documents.filter((one) => !one.path.startsWith('docs/decisions/'))) {
      for (const { text, line } of spans) {
        const [, first] = /^(?:npx )?millrace ([a-z][a-z-]*)/.exec(text) ?? []
        if (first !== undefined && !commands.has(first)) wrong.push(`${path}:${line}: millrace has no ${first}`)
        const isOurs = first !== undefined || /^--[a-z]/.test(text) || commands.has(text.split(' ')[0] as string)
        if (!isOurs) continue
        for (const [option] of text.matchAll(/(?<=^|[\s[])--[a-z][a-z-]+/g)) {
          if (!options.has(option) && !FOREIGN.has(option)) wrong.push(`${path}:${line}: millrace has no ${option}`)
        }
      }
    }
    assert.equal(wrong.join('\n'), '')
  })
})

describe('the constants that the documents name', () => {
  it('are in the code', () => {
    const code = globSync(['transforms/*.ts', 'adapters/**/*.ts', 'lib/**/*.ts'], { cwd: ROOT })
      .map((path) => readFileSync(join(ROOT, path), 'utf8'))
      .join('\n')
    const named = documents.flatMap(({ path, spans }) =>
      spans.filter(({ text }) => /^[A-Z_]+_(?:BYTES|MS)$/.test(text)).map(({ text }) => ({ path, text })),
    )
    assert.ok(named.length >= 6)
    for (const { path, text } of named) assert.match(code, new RegExp(`\\bconst ${text} = `), `${path}: ${text}`)
  })
})

/** Options of other programs that the documents speak of, and `--keep` for all that begin so. */
const FOREIGN = new Set([
  ...['--max-semi-space-size', '--stream-size', '--keep', '--permission'],
  ...['fs-read', 'fs-write', 'net', 'worker', 'child-process'].map((name) => `--allow-${name}`),
])

function inSources(type: string): string {
  return type.replace(/'([^']+)'/, (_, name) => `'${exportedSources().get(name)}'`)
}
