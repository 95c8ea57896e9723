import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace, scratch } from '../support/cli.ts'
import { followSheet, sheetCommands } from '../support/sheet.ts'
import { sample } from '../support/streams.ts'
import { KEY, onTerminal, type TerminalRun } from '../support/terminal.ts'
import { diffTrees } from '../support/tree.ts'

const TYPED_PASSWORD = 'a Password of my own, 42'

/** A folder with a world in it, and nothing else. */
async function withWorld(t: TestContext) {
  const folder = await scratch(t)
  const world = join(folder, 'Survival SMP', 'world')
  await mkdir(join(world, 'region'), { recursive: true })
  await writeFile(join(world, 'level.dat'), sample(3000))
  await writeFile(join(world, 'region/r.0.0.mca'), sample(200_000))
  return { folder, world }
}

async function mode(file: string): Promise<string> {
  return ((await stat(file)).mode & 0o777).toString(8)
}

async function allIn(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).sort()
}

/** From the first question to where the folder of the backups has been tried. */
async function answerPlaces(wizard: TerminalRun, world: string, backups: string): Promise<void> {
  await wizard.answer(/Which folder is backed up\?/, world)
  await wizard.see(/A Minecraft world: /)
  await wizard.answer(/What is the server called/, 'survival')
  await wizard.choose(/Where do backups go\?/)
  await wizard.answer(/Which folder\?/, backups)
  await wizard.see(/Everything that a backup needs works/)
  await wizard.confirm(/Add another place\?/, false)
}

async function answerTimes(wizard: TerminalRun): Promise<void> {
  await wizard.choose(/When are backups made\?/)
  await wizard.confirm(/Keep that many\?/, true)
}

test('from an empty folder to an encrypted backup and back; no secret is on the terminal or in the config', async (t) => {
  const { folder, world } = await withWorld(t)
  const minecraft = await serveMinecraft()
  t.after(() => minecraft.close())
  await writeFile(
    join(world, '../server.properties'),
    `#Minecraft server properties\nenable-rcon=true\nserver-ip=127.0.0.1\nrcon.port=${minecraft.port}\nrcon.password=${RCON_PASSWORD}\nlevel-name=world\n`,
  )
  const wizard = onTerminal(t, ['init'], { cwd: folder })
  await wizard.see(/Which folder is backed up\?/)
  // Tab completes it from its beginning.
  wizard.type(KEY.ctrlU, join(folder, 'Surv'), KEY.tab, '/wor', KEY.tab, KEY.enter)
  await wizard.see(/A Minecraft world: /)
  await wizard.see(/What is the server called/)
  wizard.type(KEY.enter)
  await wizard.confirm(/Turn saving off by RCON/, true)
  await wizard.see(/RCON answers/)
  await wizard.choose(/Where do backups go\?/)
  // What cannot be is asked again: a store in the world, and one where a file is in the way.
  await wizard.answer(/Which folder\?/, join(world, 'backups'))
  await wizard.see(/It is in what is backed up/)
  wizard.type(KEY.ctrlU, join(world, '../server.properties'), KEY.enter)
  await wizard.choose(/What now\?/)
  await wizard.answer(/Which folder\?/, join(folder, 'backups'))
  await wizard.see(/sign-in\s+ok[\s\S]*write\s+ok[\s\S]*delete\s+ok/)
  await wizard.confirm(/Add another place\?/, false)
  await wizard.choose(/What are backups encrypted with\?/, 1)
  await wizard.see(/A lost password means lost backups/)
  await wizard.answer(/Password/, TYPED_PASSWORD)
  await wizard.answer(/The same again/, `${TYPED_PASSWORD}3`)
  await wizard.see(/The two differ/)
  await wizard.answer(/Password/, TYPED_PASSWORD)
  await wizard.answer(/The same again/, TYPED_PASSWORD)
  await wizard.choose(/When are backups made\?/, 2)
  await wizard.answer(/Time zone/, 'Europe/Berlin')
  await wizard.confirm(/Keep that many\?/, true)
  await wizard.confirm(/Write it\?/, true)
  await wizard.confirm(/Write a recovery sheet\?/, true)
  await wizard.answer(/Which file\?/, join(folder, 'sheet.md'))
  await wizard.choose(/What now\?/)
  assert.equal(await wizard.end(), 0, wizard.text)

  // The guide shows these questions, in this order.
  const guide = await readFile(join(import.meta.dirname, '../../docs/guides/init.md'), 'utf8')
  const questions = [...guide.matchAll(/^◇ {2}(.*)$/gm)].map((match) => match[1] as string)
  assert.ok(questions.length >= 15)
  const shown = wizard.text.replaceAll(/\r/g, '').replaceAll(`:${minecraft.port}`, ':25575')
  let from = 0
  for (const question of questions) {
    const at = shown.indexOf(`◇  ${question}`, from)
    assert.ok(at >= 0, `${question} was not asked, or elsewhere`)
    from = at
  }

  const config = join(folder, 'millrace.yaml')
  const text = await readFile(config, 'utf8')
  for (const secret of [TYPED_PASSWORD, RCON_PASSWORD]) {
    for (const where of [wizard.raw, wizard.text, text, await readFile(join(folder, 'sheet.md'), 'utf8')]) {
      assert.ok(!where.includes(secret))
    }
  }
  assert.match(text, /source: .*\/Survival SMP\/world$/m)
  assert.match(text, /cron: 0 4 \* \* \*\n\s+timezone: Europe\/Berlin/)
  assert.match(text, /maxAge: 27h/)
  assert.equal(await mode(config), '600')
  assert.equal(await mode(join(folder, 'secrets')), '700')
  const secrets = await readdir(join(folder, 'secrets'))
  assert.deepEqual(secrets.sort(), ['password', 'survival-smp-rcon-password'])
  for (const name of secrets) assert.equal(await mode(join(folder, 'secrets', name)), '600')
  // The backup was made with saving turned off, and on again.
  assert.ok(minecraft.asked.includes('save-off') && minecraft.saving)

  const env = { MILLRACE_PASSWORD: undefined }
  const doctor = await millrace(['doctor', '--config', config], { env })
  assert.equal(doctor.code, 0, String(doctor.stdout))
  assert.match(String(doctor.stdout), /^All is well\.$/m)
  const [commands] = sheetCommands(await readFile(join(folder, 'sheet.md'), 'utf8'))
  const { home, code, said } = await followSheet(commands as string, [TYPED_PASSWORD], folder)
  assert.equal(code, 0, said)
  assert.deepEqual(diffTrees(world, join(home, 'restored-survival-smp')), [])
})

test('a second config by --force keeps the first, and the password that the first has', async (t) => {
  const { folder, world } = await withWorld(t)
  const run = async (args: string[]) => {
    const wizard = onTerminal(t, ['init', ...args], { cwd: folder })
    await answerPlaces(wizard, world, join(folder, 'backups'))
    await wizard.choose(/What are backups encrypted with\?/)
    await wizard.see(/shown this once/)
    await wizard.confirm(/Have you written it down\?/, false)
    await wizard.confirm(/Have you written it down\?/, true)
    await answerTimes(wizard)
    await wizard.confirm(/Write it\?/, true)
    await wizard.see(/Written: /)
    // Whoever stops here has a config.
    await wizard.see(/Write a recovery sheet\?/)
    wizard.type(KEY.ctrlC)
    assert.equal(await wizard.end(), 0, wizard.text)
    return wizard.text
  }
  const first = await run([])
  const password = (await readFile(join(folder, 'secrets/password'), 'utf8')).trim()
  assert.match(password, /^([a-z2-9]{5}-){5}[a-z2-9]{5}$/)
  assert.equal(first.split(password).length, 2, 'the password is shown once')
  const before = await readFile(join(folder, 'millrace.yaml'))

  await run(['--force'])
  const second = (await readFile(join(folder, 'secrets/password-2'), 'utf8')).trim()
  assert.notEqual(second, password)
  assert.equal((await readFile(join(folder, 'secrets/password'), 'utf8')).trim(), password)
  assert.match(await readFile(join(folder, 'millrace.yaml'), 'utf8'), /password: file:secrets\/password-2/)
  const copies = (await readdir(folder)).filter((name) => name.endsWith('.bak'))
  assert.equal(copies.length, 1)
  assert.deepEqual(await readFile(join(folder, copies[0] as string)), before)
})

test('Ctrl-C at any question leaves nothing behind, and is exit code 130', async (t) => {
  const stops: Record<string, (wizard: TerminalRun, folder: string, world: string) => Promise<void>> = {
    'at the first question': (wizard) => wizard.see(/Which folder is backed up\?/),
    async 'while a password is typed'(wizard, folder, world) {
      await answerPlaces(wizard, world, join(folder, 'deep/backups'))
      await wizard.choose(/What are backups encrypted with\?/, 1)
      await wizard.answer(/Password/, TYPED_PASSWORD)
      await wizard.see(/The same again/)
      wizard.type('a Pass')
    },
    async 'at the last question'(wizard, folder, world) {
      await answerPlaces(wizard, world, join(folder, 'deep/backups'))
      await wizard.choose(/What are backups encrypted with\?/, 3)
      await wizard.answer(/The file with the key/, '')
      await answerTimes(wizard)
      await wizard.see(/Write it\?/)
    },
  }
  const runs = Object.entries(stops).map(async ([when, reach]) => {
    const { folder, world } = await withWorld(t)
    const before = await allIn(folder)
    const wizard = onTerminal(t, ['init', '--config', join(folder, 'etc/millrace.yaml')], { cwd: folder })
    await reach(wizard, folder, world)
    wizard.type(KEY.ctrlC)
    assert.equal(await wizard.end(), 130, when)
    assert.match(wizard.text, /Stopped\. Nothing was written\./, when)
    assert.deepEqual(await allIn(folder), before, when)
    assert.ok(!wizard.raw.includes(TYPED_PASSWORD), when)
  })
  await Promise.all(runs)
})

test('Ctrl-C while a store that does not answer is tried leaves nothing behind', async (t) => {
  const { folder, world } = await withWorld(t)
  const before = await allIn(folder)
  const silent = createServer()
  t.after(() => silent.close())
  await once(silent.listen(0, '127.0.0.1'), 'listening')
  const wizard = onTerminal(t, ['init'], { cwd: folder })
  await wizard.answer(/Which folder is backed up\?/, world)
  await wizard.answer(/What is the server called/, 'survival')
  await wizard.choose(/Where do backups go\?/, 1)
  await wizard.choose(/Whose\?/, 9)
  await wizard.answer(/Endpoint/, `http://127.0.0.1:${(silent.address() as AddressInfo).port}`)
  await wizard.answer(/Bucket/, 'worlds')
  await wizard.answer(/Region/, 'eu')
  await wizard.answer(/Prefix/, '')
  await wizard.choose(/Where are its credentials\?/)
  await wizard.answer(/Access key id/, 'AKIA1')
  const asked = once(silent, 'connection')
  await wizard.answer(/Secret access key/, TYPED_PASSWORD)
  const [socket] = (await asked) as [Socket]
  t.after(() => socket.destroy())
  wizard.type(KEY.ctrlC)
  assert.notEqual(await wizard.end(), 0)
  await wizard.see(/Nothing unfinished was left behind/)
  assert.ok(!wizard.raw.includes(TYPED_PASSWORD))
  assert.deepEqual(await allIn(folder), before)
})

test('a config that is there is replaced only when that is said', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'millrace.yaml'), '# mine\n')
  const wizard = onTerminal(t, ['init'], { cwd: folder })
  await wizard.choose(/is there already/, 2)
  assert.equal(await wizard.end(), 130)
  assert.equal(await readFile(join(folder, 'millrace.yaml'), 'utf8'), '# mine\n')
  assert.deepEqual(await readdir(folder), ['millrace.yaml'])
})

test('a place where no config can be is told before any question', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'file'), '')
  const wizard = onTerminal(t, ['init', '--config', 'file/millrace.yaml'], { cwd: folder })
  assert.notEqual(await wizard.end(), 0)
  assert.match(wizard.text, /millrace\.yaml cannot be written: .*file is not a folder/)
  assert.doesNotMatch(wizard.text, /Which folder is backed up/)
})

test('without a terminal init says what to do instead, and ends with 2', async (t) => {
  const folder = await scratch(t)
  const { code, stderr } = await millrace(['init'], { cwd: folder })
  assert.equal(code, 2)
  assert.match(stderr, /millrace config example/)
  assert.deepEqual(await readdir(folder), [])
})
