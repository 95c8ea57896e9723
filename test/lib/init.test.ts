import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../lib/config/index.ts'
import { RCON_PASSWORD, serveMinecraft } from '../fakes/minecraft.ts'
import { millrace, scratch } from '../support/cli.ts'
import { sample } from '../support/streams.ts'
import { KEY, onTerminal } from '../support/terminal.ts'
import { diffTrees } from '../support/tree.ts'

const TYPED_PASSWORD = 'a Password of my own, 42'

test('the wizard leads from an empty folder to an encrypted backup, and no secret is on the terminal', async (t) => {
  const folder = await scratch(t)
  const minecraft = await serveMinecraft()
  t.after(() => minecraft.close())
  const server = join(folder, 'Survival SMP')
  const world = join(server, 'world')
  await mkdir(join(world, 'region'), { recursive: true })
  await writeFile(join(world, 'level.dat'), sample(3000))
  await writeFile(join(world, 'region/r.0.0.mca'), sample(200_000))
  await writeFile(
    join(server, 'server.properties'),
    `#Minecraft server properties\nenable-rcon=true\nserver-ip=127.0.0.1\nrcon.port=${minecraft.port}\nrcon.password=${RCON_PASSWORD}\nlevel-name=world\n`,
  )
  const wizard = onTerminal(t, ['init'], { cwd: folder })
  await wizard.see(/Which folder is backed up\?/)
  // Completed from its beginning.
  wizard.type(KEY.ctrlU, join(folder, 'Surv'), KEY.tab, '/wor', KEY.tab, KEY.enter)
  await wizard.see(/A Minecraft world: /)
  await wizard.see(/What is the server called/)
  wizard.type(KEY.enter)
  await wizard.confirm(/Turn saving off by RCON/, true)
  await wizard.see(/RCON answers/)
  await wizard.choose(/Where do backups go\?/)
  await wizard.answer(/Which folder\?/, join(folder, 'backups'))
  await wizard.see(/sign-in[\s\S]*write[\s\S]*delete/)
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
  await wizard.see(/Written: /)
  await wizard.confirm(/Write a recovery sheet\?/, true)
  await wizard.answer(/Which file\?/, join(folder, 'sheet.md'))
  await wizard.choose(/What now\?/)
  assert.equal(await wizard.end(), 0, wizard.text)
  console.log(wizard.text)
  console.log(await readFile(join(folder, 'millrace.yaml'), 'utf8'))
})
