import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { TestContext } from 'node:test'
import { scratch } from './cli.ts'
import type { ManyCase, ManyResult } from './main-many.ts'
import { sample } from './streams.ts'
import { SECRET } from './wrong-config.ts'

export type { ManyResult }

/** The key of CONFIG, and of its file `key`. */
export const KEY = randomBytes(32).toString('hex')
const MANY = join(import.meta.dirname, 'main-many.ts')

/** Runs the command for each case, one after the other in one process. */
export async function runMany(folder: string, cases: readonly ManyCase[]): Promise<ManyResult[]> {
  const env = {
    ...process.env,
    XDG_CONFIG_HOME: folder,
    MILLRACE_STATE_DIR: join(folder, 'state'),
  } as NodeJS.ProcessEnv
  for (const name of ['MILLRACE_PASSWORD', 'MILLRACE_CONFIG', 'MILLRACE_RCON_PASSWORD']) delete env[name]
  const child = spawn(process.execPath, [MANY], { env, cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(cases))
  const results = JSON.parse(await text(child.stdout)) as ManyResult[]
  assert.equal(results.length, cases.length)
  return results
}

/** The lines of `--json` output. */
export function events({ stdout }: Pick<ManyResult, 'stdout'>): Record<string, unknown>[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

/** Two servers, two destinations, and something of everything. */
export const CONFIG = `
destinations:
  local: { provider: filesystem, root: stores/local }
  spare: { provider: filesystem, root: stores/spare }
encryption: { key: file:key }
defaults: { retention: { keepLast: 2 }, maxAge: 26h }
servers:
  survival:
    source: worlds/survival
    exclude: ['*.tmp']
    level: 1
  creative:
    source: worlds/creative
    destinations: [local]
    encryption: { password: "command:cat 'other password'" }
    prune: false
stateFolder: kept
metricsFile: millrace.prom
`

/** A folder with two worlds, a config, and what it names. */
export async function place(t: TestContext, config = CONFIG): Promise<string> {
  const folder = await scratch(t)
  for (const world of ['survival', 'creative']) {
    await mkdir(join(folder, 'worlds', world), { recursive: true })
    await writeFile(join(folder, 'worlds', world, 'level.dat'), sample(5000))
  }
  await writeFile(join(folder, 'worlds/survival/lock.tmp'), 'x')
  await writeFile(join(folder, 'password'), `${SECRET}\n`)
  // A key where it does not matter: each password costs a derivation.
  await writeFile(join(folder, 'key'), KEY)
  await writeFile(join(folder, 'other password'), `${SECRET}-2\n`)
  await writeFile(join(folder, 'millrace.yaml'), config, { mode: 0o600 })
  return folder
}
