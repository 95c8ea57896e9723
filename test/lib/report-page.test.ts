import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { openStorage } from '../../adapters/open.ts'
import { listSnapshots } from '../../lib/catalog.ts'
import { HeadCache } from '../../lib/head-cache.ts'
import { type RunRecord, recordRun } from '../../lib/history.ts'
import { pinSnapshot } from '../../lib/pins.ts'
import { collectReport } from '../../lib/report/collect.ts'
import { escapeText, html } from '../../lib/report/html.ts'
import { buildReport, type ServerFacts } from '../../lib/report/model.ts'
import { renderReport } from '../../lib/report/page.ts'
import { STYLE } from '../../lib/report/style.ts'
import { VerifyNotes } from '../../lib/verify-notes.ts'
import { millrace, scratch } from '../support/cli.ts'
import { parseMarkup, type Tag } from '../support/markup.ts'
import { NOW, worldFacts } from '../support/report-facts.ts'
import { DAY_MS, HOUR_MS, keysIn, putSnapshot } from '../support/retention.ts'
import { overriding } from '../support/storage.ts'

const page = (...servers: ServerFacts[]) => renderReport(buildReport({ now: NOW, servers, unreadable: [] }))

/** Elements and attributes that load, run or send something. */
const ACTIVE = /^(?:script|iframe|object|embed|img|image|use|form|base|audio|video|source|a)$/
const LOADING = /^(?:src|href|xlink:href|srcset|action|formaction|data|poster|background|style|on.*)$/

function activeIn(tags: readonly Tag[]): string[] {
  return tags.flatMap(({ name, attributes }) => {
    const loading = [...attributes].filter(([attribute]) => LOADING.test(attribute))
    const kept = loading.filter(([, value]) => !value.startsWith('#') && value !== 'data:,')
    const active = ACTIVE.test(name) && !attributes.get('href')?.startsWith('#')
    return active || kept.length > 0 ? [`${name} ${JSON.stringify(kept)}`] : []
  })
}

test('the page is well-formed, loads nothing and runs nothing, with few snapshots, many, several servers and none', () => {
  const small = worldFacts({ backups: 10, server: 'lobby', everyMs: DAY_MS, known: 7 })
  const large = worldFacts({ backups: 10_000 })
  for (const text of [page(small), page(large), page(small, large), page()]) {
    const { tags } = parseMarkup(text)
    assert.deepEqual(activeIn(tags), [])
    assert.doesNotMatch(text, /https?:|@import|url\(/)
    const ids = tags.flatMap(({ attributes }) => attributes.get('id') ?? [])
    assert.equal(new Set(ids).size, ids.length)
    for (const { attributes } of tags) {
      for (const id of attributes.get('aria-labelledby')?.split(' ') ?? []) assert.ok(ids.includes(id), id)
      const link = attributes.get('href')
      if (link?.startsWith('#')) assert.ok(ids.includes(link.slice(1)), link)
    }
    assert.ok(text.length < 4_000_000, String(text.length))
  }
  assert.equal(parseMarkup(page(large)).tags.filter(({ name }) => name === 'tr').length < 300, true)
})

test('the policy of the page forbids everything but its one style, named by its hash', () => {
  const text = page(worldFacts({ backups: 3 }))
  const { tags } = parseMarkup(text)
  const content = tags.find(({ attributes }) => attributes.get('http-equiv') === 'Content-Security-Policy')?.attributes
  const policy = content?.get('content')?.replaceAll('&#39;', "'") ?? ''
  const [, style] = /<style>(.*)<\/style>/s.exec(text) ?? []
  const hash = createHash('sha256')
    .update(style as string)
    .digest('base64')
  assert.deepEqual(policy.split('; '), [
    "default-src 'none'",
    `style-src 'sha256-${hash}'`,
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
  ])
})

test('every picture has a name and a description, and every table its headings', () => {
  const text = page(worldFacts({ backups: 500, pruned: true }))
  const { tags } = parseMarkup(text)
  const pictures = tags.filter(({ attributes }) => attributes.get('role') === 'img')
  assert.equal(pictures.length, 4)
  for (const { attributes } of pictures) assert.equal(attributes.get('aria-labelledby')?.split(' ').length, 2)
  assert.equal([...text.matchAll(/<desc [^>]+>[^<]{20,}<\/desc>/g)].length, 4)
  const scopes = tags.filter(({ name }) => name === 'th').map(({ attributes }) => attributes.get('scope'))
  assert.ok(scopes.includes('col') && scopes.includes('row') && !scopes.includes(undefined))
})

const HOSTILE = `</style></title><script>hacked()</script><img src=x onerror=hacked()>"'&\u202e\u0000\u2028]]>`

test('text from stores, pins, errors and snapshots does nothing, whatever it is', () => {
  const facts = worldFacts({ backups: 60 })
  const [store] = facts.stores
  for (const decision of store.decisions) decision.reasons.push(HOSTILE)
  const hostile: ServerFacts = {
    ...facts,
    server: HOSTILE,
    stores: [
      { ...store, location: HOSTILE },
      { location: `${HOSTILE}2`, decisions: [] },
    ],
    heads: new Map([...facts.heads].map(([key, head]) => [key, { ...head, consistency: HOSTILE }])),
    pins: facts.pins.map((pin) => ({ ...pin, note: HOSTILE })),
    runs: facts.runs.map((run) => ({ ...run, outcome: 'failed', error: { code: HOSTILE, message: HOSTILE } })),
    maxAge: '1s',
  }
  const unreadable = [{ location: HOSTILE, reason: HOSTILE }]
  const text = renderReport(buildReport({ now: NOW, servers: [hostile, { ...facts, server: 'other' }], unreadable }))
  const { tags, texts } = parseMarkup(text)
  assert.deepEqual(
    tags.filter(({ name }) => name === 'script' || name === 'img'),
    [],
  )
  assert.deepEqual(activeIn(tags.filter(({ name }) => name !== 'a')), [])
  assert.ok(texts.some((one) => one.includes('&lt;script&gt;hacked()')))
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  assert.doesNotMatch(text, /[\u0000-\u0009\u000b-\u001f\u202e\u2028]/)
})

test('whatever text is put into markup, it comes out as that text and no more', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (text) => {
      const { tags, texts } = parseMarkup(html`<p title="${text}">${text}</p>`.text)
      assert.equal(tags.length, 1)
      assert.equal(tags[0]?.attributes.get('title'), escapeText(text))
      assert.equal(texts.join(''), escapeText(text))
    }),
  )
  const list = html`<b>${[html`<i>1</i>`, ' & ', 2, false, null]}</b>`.text
  assert.equal(list, '<b><i>1</i> &amp; 2</b>')
})

/** The relative luminance of WCAG 2. */
function luminance(colour: string): number {
  const short = colour.length === 4 ? colour.replace(/[0-9a-f]/g, '$&$&') : colour
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(short.slice(at, at + 2), 16) / 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  }) as [number, number, number]
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

test('every text colour has a contrast of 4.5 to every ground that it is on, light and dark', () => {
  const schemes = [...STYLE.matchAll(/:root\{([^}]*--ground[^}]*)\}/g)].map(
    ([, declarations]) =>
      new Map(
        [...(declarations as string).matchAll(/--([a-z-]+):(#[0-9a-f]+)/g)].map(([, name, value]) => [name, value]),
      ),
  )
  assert.equal(schemes.length, 2)
  const onSheet = ['ink', 'soft', 'main', 'second', 'good', 'warn', 'bad'].flatMap((text) => [
    [text, 'sheet'],
    [text, 'ground'],
  ])
  for (const scheme of schemes) {
    for (const [text, ground] of [
      ...onSheet,
      ['good', 'good-ground'],
      ['warn', 'warn-ground'],
      ['bad', 'bad-ground'],
    ]) {
      const [a, b] = [text, ground].map((name) => luminance(scheme.get(name) as string)).sort((x, y) => y - x)
      const contrast = ((a as number) + 0.05) / ((b as number) + 0.05)
      assert.ok(contrast >= 4.5, `${text} on ${ground}: ${contrast.toFixed(2)}`)
    }
  }
})

test('millrace report writes a page of all servers from what is listed and remembered, and changes nothing', async (t) => {
  const folder = await scratch(t)
  const state = join(folder, 'state')
  const url = `file://${folder}/store`
  const storage = await openStorage(url)
  const now = Date.now()
  for (const ago of [40, 3, 2, 1]) await putSnapshot(storage, now - ago * DAY_MS, { server: 'survival' })
  await putSnapshot(storage, now - 5 * HOUR_MS, { server: 'lobby' })
  await putSnapshot(storage, now - HOUR_MS, { server: 'lobby', companion: false })
  const [oldest, ...rest] = await listSnapshots(storage, 'survival')
  const last = rest.at(-1)!
  await pinSnapshot(storage, 'survival', oldest!.id, 'the first world')
  const head = { consistency: 'quiesced', files: 3, bytes: 300, excluded: 0 }
  await new HeadCache(state, storage.location).write('survival', [[last, head]])
  const verification = { id: last.id, status: 'ok', mode: 'full', storedBytes: last.storedBytes, elapsedMs: 1 } as const
  await new VerifyNotes(state, storage.location).remember(last, verification)
  const run: RunRecord = {
    ...{ at: new Date(now).toISOString(), command: 'backup', server: 'survival', outcome: 'ok', exitCode: 0 },
    ...{ bytes: 300, elapsedMs: 3 },
  }
  await recordRun(state, { ...run, destinations: [{ destination: storage.location, ok: true }] })
  await recordRun(state, { ...run, destinations: [{ destination: 'file:///elsewhere', ok: true }] })
  const keys = await keysIn(storage)
  const before = await readdir(state, { recursive: true })

  const file = join(folder, 'report.html')
  await writeFile(file, 'the page of yesterday')
  const env = { MILLRACE_STATE_DIR: state, MILLRACE_PASSWORD: undefined }
  const args = ['report', '--from', url, '--keep-daily', '2', '--max-age', '30h', '-o', file, '--json']
  const result = await millrace(args, { env })
  assert.equal(result.code, 0, result.stderr)
  const event = result.events()[0] as unknown as ReturnType<typeof buildReport> & { event: string }
  assert.equal(event.event, 'report')
  assert.deepEqual(
    event.servers.map(({ server, state, counts }) => [
      server,
      state,
      counts.complete,
      counts.unfinished,
      counts.remove,
    ]),
    [
      ['lobby', 'good', 1, 1, 0],
      ['survival', 'good', 4, 0, 1],
    ],
  )
  const survival = event.servers[1]!
  assert.equal(survival.lastVerified?.id, last.id)
  assert.equal(survival.snapshots[0]?.bytes, 300)
  assert.equal(survival.snapshots.at(-1)?.note, 'the first world')
  assert.equal(survival.runs.backups, 1, 'a run to another store is not of this one')
  const text = await readFile(file, 'utf8')
  parseMarkup(text)
  assert.match(text, /the first world/)
  assert.ok(text.includes(last.id))
  assert.deepEqual(await keysIn(storage), keys)
  assert.deepEqual(await readdir(state, { recursive: true }), before)
  await storage.close()
})

test('a store that cannot be read is said, and the exit code is 3; of two stores the worse one decides', async (t) => {
  const folder = await scratch(t)
  const storage = await openStorage(`file://${folder}/one`)
  await putSnapshot(storage, Date.now() - HOUR_MS, { server: 'lobby' })
  await storage.close()
  await mkdir(join(folder, 'two'))
  await writeFile(join(folder, 'file'), '')
  const from = ['one', 'two', 'file/x'].flatMap((name) => ['--from', `file://${folder}/${name}`])
  const options = { cwd: folder, env: { MILLRACE_STATE_DIR: join(folder, 'state') } }
  const named = await millrace(['report', ...from, '--server', 'lobby'], options)
  assert.equal(named.code, 3, `${named.stdout}${named.stderr}`)
  assert.match(named.stderr, /Warning: .*file\/x could not be read: /)
  assert.match(named.stdout.toString(), /Wrote report\.html: 1 server\n {2}lobby: problem/)
  const text = await readFile(join(folder, 'report.html'), 'utf8')
  assert.match(text, /There is no complete snapshot in file:\/\/.*two/)
  assert.match(text, /<td>could not be read<\/td>/)
  const all = await millrace(['report', ...from], options)
  assert.equal(all.code, 3, `${all.stdout}${all.stderr}`)
  assert.match(all.stdout.toString(), /Wrote report\.html: 1 server\n {2}lobby: good/)
  assert.match(
    await readFile(join(folder, 'report.html'), 'utf8'),
    /file\/x could not be read, and is not in this report/,
  )
})

test('with a config, the report is of its servers and destinations, with their retention and maxAge', async (t) => {
  const folder = await scratch(t)
  const storage = await openStorage(`file://${folder}/store`)
  for (const ago of [9, 5, 3]) await putSnapshot(storage, Date.now() - ago * HOUR_MS, { server: 'survival' })
  await putSnapshot(storage, Date.now() - HOUR_MS, { server: 'stranger' })
  await storage.close()
  const config = `
destinations:
  disk: { provider: filesystem, root: ./store }
servers:
  survival: { source: ./world, retention: { keepLast: 2 }, maxAge: 2h }
  lobby: { source: ./lobby }
stateFolder: ./state
`
  await writeFile(join(folder, 'millrace.yaml'), config)
  const result = await millrace(['report', '--json', '-o', 'page.html'], { cwd: folder })
  assert.equal(result.code, 0, result.stderr)
  const model = result.events()[0] as unknown as ReturnType<typeof buildReport>
  assert.deepEqual(
    model.servers.map(({ server, state, maxAge, counts, policy }) => [server, state, maxAge, counts.remove, policy]),
    [
      ['lobby', 'problem', null, 0, { keepHourly: 24, keepDaily: 14, keepWeekly: 8 }],
      ['survival', 'problem', '2h', 1, { keepLast: 2 }],
    ],
  )
  assert.match(await readFile(join(folder, 'page.html'), 'utf8'), /is 3 hours old; 2h is the limit/)
})

test('a report of all servers lists the store once, and reads no pin that it does not show', async (t) => {
  const folder = await scratch(t)
  const storage = await openStorage(`file://${folder}/store`)
  const now = new Date()
  for (const server of ['lobby', 'creative', 'survival']) {
    for (const ago of [3, 2, 1]) await putSnapshot(storage, now.getTime() - ago * DAY_MS, { server })
  }
  const [oldest] = await listSnapshots(storage, 'survival')
  await pinSnapshot(storage, 'survival', oldest!.id, 'the first world')
  const asked: string[] = []
  const watched = overriding(storage, {
    list: (prefix, options) => {
      asked.push(`list ${prefix}`)
      return storage.list(prefix, options)
    },
    createReadStream: (key, options) => {
      asked.push('read')
      return storage.createReadStream(key, options)
    },
  })
  const settingsOf = () => ({ policy: { keepLast: 2 } })
  const options = { settingsOf, stateFolder: join(folder, 'state'), now }
  const { servers } = await collectReport([{ stores: [{ storage: watched }] }], options)
  assert.deepEqual(
    servers.map(({ server, stores: [{ decisions }], pins }) => [
      server,
      decisions.map(({ action }) => action).join(),
      pins.map(({ note }) => note).join(),
    ]),
    [
      ['creative', 'remove,keep,keep', ''],
      ['lobby', 'remove,keep,keep', ''],
      ['survival', 'keep,keep,keep', 'the first world'],
    ],
  )
  assert.deepEqual(asked, ['list ', 'read'])
  await storage.close()
})
