import assert from 'node:assert/strict'
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parseConfig } from '../../lib/config/index.ts'
import { makeRecoverySheet } from '../../lib/recovery-sheet.ts'
import { sheetText } from '../../lib/recovery-sheet-text.ts'
import { millrace, scratch } from '../support/cli.ts'
import { followSheet, sheetCommands } from '../support/sheet.ts'
import { SAMPLE, sampleSheet } from '../support/sheet-sample.ts'
import { sample } from '../support/streams.ts'
import { KEY, onTerminal } from '../support/terminal.ts'
import { diffTrees } from '../support/tree.ts'

// Also the spaces at its ends count.
const PASSWORD = ' pass word\'s "own" '
const KEY_HEX = '00112233445566778899aabbccddeeff'.repeat(2)

/** A world, its config, and a backup of it in each of two folders. */
async function backedUp(t: TestContext, encryption: string) {
  const folder = await scratch(t)
  const world = join(folder, "it's a world")
  await mkdir(join(world, 'region'), { recursive: true })
  await writeFile(join(world, 'region/r.0.0.mca'), sample(300_000))
  await writeFile(join(folder, 'password'), PASSWORD, { mode: 0o600 })
  await writeFile(join(folder, 'key'), Buffer.from(KEY_HEX, 'hex'), { mode: 0o600 })
  const config = join(folder, 'millrace.yaml')
  await writeFile(
    config,
    `destinations:
  near: {provider: filesystem, root: "near backups"}
  far: {provider: filesystem, root: far}
encryption: ${encryption}
servers:
  survival: {source: "it's a world"}
`,
    { mode: 0o600 },
  )
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await millrace(args, { cwd: folder, env: { MILLRACE_PASSWORD: undefined } })
    assert.equal(code, 0, `${args[0]}: ${stdout}${stderr}`)
    return String(stdout)
  }
  await run('backup')
  return { folder, world, config, run }
}

test('a machine that has nothing restores by the commands of the sheet, from either store, with the password by hand', async (t) => {
  const { folder, world, run } = await backedUp(t, '{password: file:password}')
  await run('recovery-sheet', '-o', 'sheet.md')
  const sheet = await readFile(join(folder, 'sheet.md'), 'utf8')
  assert.equal((await stat(join(folder, 'sheet.md'))).mode & 0o777, 0o600)
  assert.ok(!sheet.includes(PASSWORD))
  assert.match(sheet, /^The password: _+$/m)
  const blocks = sheetCommands(sheet)
  assert.equal(blocks.length, 2)
  // All that the machine had is gone.
  await rm(join(folder, 'millrace.yaml'))
  await rm(join(folder, 'password'))
  for (const block of blocks) {
    const { home, code, said } = await followSheet(block, [PASSWORD], folder)
    assert.equal(code, 0, said)
    assert.ok(!said.includes(PASSWORD))
    assert.deepEqual(diffTrees(world, join(home, 'restored-survival')), [])
  }
})

test('the same with a key that is typed as hex', async (t) => {
  const { folder, world, run } = await backedUp(t, '{key: file:key}')
  await run('recovery-sheet', '-o', 'sheet.md')
  const [block] = sheetCommands(await readFile(join(folder, 'sheet.md'), 'utf8'))
  const { home, code, said } = await followSheet(block as string, [KEY_HEX], folder)
  assert.equal(code, 0, said)
  assert.deepEqual(diffTrees(world, join(home, 'restored-survival')), [])
})

test('the password is on the sheet only when that is asked for and confirmed at a terminal', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'password'), PASSWORD)
  const config =
    'destinations: {a: {provider: filesystem, root: b}}\nencryption: {password: file:password}\nservers: {s: {source: w}}\n'
  await writeFile(join(folder, 'millrace.yaml'), config)
  const args = ['recovery-sheet', '--with-password', '-o', 'sheet.html']
  const { code, stderr } = await millrace(args, { cwd: folder })
  assert.equal(code, 2)
  assert.match(stderr, /no terminal/)
  const refusing = onTerminal(t, args, { cwd: folder })
  await refusing.confirm(/Put the password on it\?/, false)
  assert.equal(await refusing.end(), 2)
  await assert.rejects(stat(join(folder, 'sheet.html')), { code: 'ENOENT' })
  const meaning = onTerminal(t, args, { cwd: folder })
  await meaning.see(/Put the password on it\?/)
  meaning.type(KEY.yes)
  assert.equal(await meaning.end(), 0)
  assert.ok(!meaning.raw.includes(PASSWORD))
  const page = await readFile(join(folder, 'sheet.html'), 'utf8')
  assert.ok(page.includes('pass word&#39;s &quot;own&quot;'))
  assert.match(page, /@media print/)
  // Self-contained: nothing is fetched.
  assert.doesNotMatch(page, /<(?:script|link|img|iframe)|url\(|@import/i)
})

/** What each provider's sheet says and runs. */
const STORES: Record<string, { settings: string; says: RegExp[]; asks: string[] }> = {
  s3: {
    settings:
      "{provider: s3, bucket: worlds, prefix: 'mc/a b', region: eu, endpoint: 'https://s3.example.org', profile: minio, accessKeyId: '${SHEET_ID}', secretAccessKey: file:nowhere}",
    says: [
      /bucket: `worlds`/,
      /prefix: `mc\/a b`/,
      /region: `eu`/,
      /endpoint: `https:\/\/s3\.example\.org`/,
      /^export AWS_ACCESS_KEY_ID=AKIA1$/m,
      /^STORE='s3:\/\/worlds\/mc\/a%20b\?endpoint=https:\/\/s3\.example\.org&region=eu&profile=minio'$/m,
    ],
    asks: ['MILLRACE_PASSWORD', 'AWS_SECRET_ACCESS_KEY'],
  },
  'backblaze-b2': {
    settings: "{provider: backblaze-b2, bucket: worlds, keyId: '${SHEET_ID}', applicationKey: file:nowhere}",
    says: [/^export B2_APPLICATION_KEY_ID=AKIA1$/m, /^STORE=b2:\/\/worlds\/$/m],
    asks: ['MILLRACE_PASSWORD', 'B2_APPLICATION_KEY'],
  },
  'google-drive': {
    settings:
      "{provider: google-drive, folder: backups/mc, sharedDriveId: D1, clientId: '${SHEET_ID}', clientSecret: file:a, refreshToken: file:b}",
    says: [/^export MILLRACE_GOOGLE_CLIENT_ID=AKIA1$/m, /^STORE='drive:\/\/\/backups\/mc\?sharedDrive=D1'$/m],
    asks: ['MILLRACE_PASSWORD', 'MILLRACE_GOOGLE_CLIENT_SECRET', 'MILLRACE_GOOGLE_REFRESH_TOKEN'],
  },
  'google-drive by id': {
    settings: '{provider: google-drive, folderId: F1, folder: mc}',
    says: [/^cat > recovery\.yaml/m, /folderId: F1/, /--config recovery\.yaml --from off/],
    asks: [
      'MILLRACE_PASSWORD',
      'MILLRACE_GOOGLE_CLIENT_ID',
      'MILLRACE_GOOGLE_CLIENT_SECRET',
      'MILLRACE_GOOGLE_REFRESH_TOKEN',
    ],
  },
  dropbox: {
    settings: "{provider: dropbox, root: /backups, namespace: '12', clientId: '${SHEET_ID}', refreshToken: file:b}",
    says: [/^STORE='dropbox:\/\/\/backups\?namespace=12'$/m],
    asks: ['MILLRACE_PASSWORD', 'MILLRACE_DROPBOX_REFRESH_TOKEN'],
  },
  'dropbox with another root': {
    settings: "{provider: dropbox, root: /backups, rootNamespace: '12', clientId: '${SHEET_ID}', refreshToken: file:b}",
    says: [/rootNamespace: "12"/, /--config recovery\.yaml/],
    asks: ['MILLRACE_PASSWORD', 'MILLRACE_DROPBOX_REFRESH_TOKEN'],
  },
}

for (const [name, { settings, says, asks }] of Object.entries(STORES)) {
  test(`the sheet for ${name} has what is no secret, and asks for what is one`, async () => {
    process.env.SHEET_ID = 'AKIA1'
    const text = `destinations: {off: ${settings}}\nencryption: {password: file:nowhere}\nservers: {survival: {source: w}}\n`
    const loaded = parseConfig(text, '/etc/millrace/millrace.yaml')
    const sheet = await makeRecoverySheet(loaded, 'survival', { now: new Date('2026-11-22T10:00:00Z') })
    const markdown = sheetText(sheet, 'md')
    for (const pattern of says) assert.match(markdown, pattern)
    assert.match(markdown, /made: `2026-11-22, by millrace \d+\.\d+\.\d+`/)
    const asked = [...markdown.matchAll(/read -rs? (\w+);/g)].map((match) => match[1])
    assert.deepEqual(asked, asks)
    // Where a config is needed, it is a valid one.
    const inner = /<<'END'\n([\s\S]*?)END$/m.exec(markdown)?.[1]
    if (inner !== undefined) assert.equal(parseConfig(inner, 'recovery.yaml').config.servers.survival?.source, 'world')
    for (const plain of [sheetText(sheet, 'txt'), sheetText(sheet, 'html')]) {
      assert.match(plain, /Recovery sheet: the backups of survival/)
      assert.match(plain, /millrace restore latest/)
    }
  })
}

test('the sheet installs the package that this is', async () => {
  const { name, version, engines } = JSON.parse(await readFile(join(import.meta.dirname, '../../package.json'), 'utf8'))
  const loaded = parseConfig(
    'destinations: {a: {provider: filesystem, root: b}}\nservers: {s: {source: w}}\n',
    'millrace.yaml',
  )
  const text = sheetText(await makeRecoverySheet(loaded, 's'), 'md')
  assert.ok(text.includes(`npm install -g ${name}@${version}\n`))
  assert.ok(text.includes(`Node ${engines.node.replace('>=', '')} or newer`))
})

test('what is not encrypted is restored without a password', async () => {
  const text = 'destinations: {a: {provider: filesystem, root: b}}\nencryption: false\nservers: {s: {source: w}}\n'
  const markdown = sheetText(await makeRecoverySheet(parseConfig(text, 'millrace.yaml'), 's'), 'md')
  assert.match(markdown, /^millrace restore latest .* --no-encryption /m)
  assert.doesNotMatch(markdown, /read -r|_{10}/)
})

test('the sample of the guide is what the code makes; `node test/support/sheet-sample.ts` brings it up to date', async () => {
  // A new version is not a new sheet.
  const plain = (text: string) => text.replaceAll(/millrace( |@)\d+\.\d+\.\d+/g, 'millrace$1x')
  assert.equal(plain(await readFile(SAMPLE, 'utf8')), plain(await sampleSheet()))
})
