// Packs the package as it would be published, installs it with npm into an empty project, and uses it from there, on
// each line of Node: every export imports, its types compile, the command runs. `npm run check:package`.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { emptyProject, lockedPackages } from './project.ts'
import { attempt, ROOT, run } from './run.ts'

/** What may be in the package, and nothing else. */
const ALLOWED =
  /^package\/(dist\/(lib|transforms|adapters|test\/contract)\/.+\.(js|d\.ts)|dist\/bin\/.+\.js|transforms\/FORMAT\.md|(README|CHANGELOG)\.md|LICENSE|package\.json)$/
const NEEDED = ['README.md', 'CHANGELOG.md', 'LICENSE', 'dist/bin/millrace.js', 'dist/lib/index.d.ts']
/** The modules of the exports, and the command made of the same in few files: 911 KiB in November 2026. */
const MAX_PACKED_BYTES = 1024 * 1024
const MAX_FILE_BYTES = 256 * 1024

/** From these on, encryption and small files have threads. */
const THREADED_BYTES = 72 * 1024 * 1024
const THREADED_FILES = 2000

const RUNTIMES = [
  process.execPath,
  ...['node22', 'node26'].map((name) => join(ROOT, 'node_modules', name, 'bin/node')),
] as const

const scratch = mkdtempSync(join(tmpdir(), 'millrace-package-'))
try {
  const tarball = pack()
  const { name, version, exports, bin, scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  for (const script of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[script], undefined)
  const scripted = lockedPackages('production').filter(([, { hasInstallScript }]) => hasInstallScript)
  assert.deepEqual(scripted, [], 'a dependency runs a script when it is installed')

  step('publint and attw')
  run(process.execPath, [tool('publint/src/cli.js'), 'run', tarball, '--strict'])
  const attw = [tool('@arethetypeswrong/cli/dist/index.js'), tarball, '--profile', 'esm-only', '--no-definitely-typed']
  run(process.execPath, [...attw, '--exclude-entrypoints', './package.json'])

  const names = Object.keys(exports).filter((one) => one !== './package.json')
  const project = emptyProject(join(scratch, 'project'), tarball)
  step('npm ci')
  run('npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'], project)
  const installed = join(project, 'node_modules', name)

  step('types')
  compile(project, names)

  for (const node of RUNTIMES) {
    const { stdout } = attempt(node, ['--version'])
    step(`Node ${stdout.trim()}`)
    useIt(node, project, names, join(installed, bin.millrace), version)
  }
  tooOld(join(installed, bin.millrace))

  step('npm ci --ignore-scripts, npx')
  const bare = emptyProject(join(scratch, 'bare'), tarball)
  run('npm', ['ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'], bare)
  assert.equal(run('npx', ['--no-install', 'millrace', '--version'], bare).trim(), version)

  step('npm audit')
  const audit = attempt(
    'npm',
    ['audit', '--omit=dev', '--loglevel=warn', '--fetch-timeout=10000', '--fetch-retries=0'],
    project,
  )
  console.log(audit.code === 0 ? audit.stdout.trim() : `For information only: ${audit.stdout}${audit.stderr}`.trim())
  console.log(`The package, its ${names.length} exports and its command work on ${RUNTIMES.length} lines of Node.`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

function step(what: string): void {
  console.log(`${process.uptime().toFixed(0).padStart(4)} s  ${what}`)
}

/** A program of a development dependency. */
function tool(path: string): string {
  return join(ROOT, 'node_modules', path)
}

/** @returns the path of the tarball; what is in it has been looked at. */
function pack(): string {
  step('build and pack')
  run('npm', ['run', '-s', 'build'], ROOT)
  run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', scratch], ROOT)
  const tarball = join(scratch, readdirSync(scratch).find((name) => name.endsWith('.tgz')) as string)
  const files = run('tar', ['tzf', tarball]).trim().split('\n')
  for (const wanted of NEEDED) assert.ok(files.includes(`package/${wanted}`), `${wanted} is not in the package`)
  const strangers = files.filter((file) => !ALLOWED.test(file))
  assert.deepEqual(strangers, [], 'files that nobody asked for are in the package')
  const { size } = statSync(tarball)
  assert.ok(size <= MAX_PACKED_BYTES, `the package has ${size} bytes, and ${MAX_PACKED_BYTES} are allowed`)
  for (const file of files) {
    const path = join(ROOT, file.replace('package/', ''))
    assert.ok(statSync(path).size <= MAX_FILE_BYTES, `${file} is larger than ${MAX_FILE_BYTES} bytes`)
    // There are no maps in the package, so nothing may point to one.
    if (file.startsWith('package/dist/')) assert.doesNotMatch(readFileSync(path, 'utf8'), /sourceMappingURL/, file)
  }
  console.log(`        ${files.length} files, ${Math.round(size / 1024)} KiB`)
  return tarball
}

/** A program in TypeScript that uses every export, as strict as it gets, by both ways of resolving that are in use. */
function compile(project: string, names: readonly string[]): void {
  const imports = names.map((name, i) => `import * as m${i} from '${join('millrace', name)}'`)
  const text = `${imports.join('\n')}
import { type Backups, type CreatedSnapshot, openBackups } from 'millrace'
import { createEncrypt, createHashTee, createZstdCompress } from 'millrace/transforms'
import { openMemory, type Storage } from 'millrace/adapters'

export const all: object[] = [${names.map((_, i) => `m${i}`).join(', ')}]
export async function use(): Promise<string> {
  const storage: Storage = await openMemory()
  const backups: Backups = await openBackups({ storage, server: 'world', password: 'a password' })
  const made: CreatedSnapshot = await backups.create('/srv/world', { onProgress: ({ bytes }) => console.log(bytes) })
  // @ts-expect-error there is no such option: the types are really there
  await backups.create('/srv/world', { nonsense: true })
  createZstdCompress().pipe(createEncrypt({ password: 'a password' })).pipe(createHashTee())
  return made.sha256
}
`
  writeFileSync(join(project, 'consumer.ts'), text)
  const strict = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true }
  for (const [module, moduleResolution] of [
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ]) {
    const language = { target: 'es2024', lib: ['es2024', 'dom'], types: ['node'], verbatimModuleSyntax: true }
    // The declarations of other packages are not ours to check; ours are, since consumer.ts and they are one program.
    const compilerOptions = { ...strict, ...language, module, moduleResolution, skipLibCheck: false }
    const config = join(project, `tsconfig.${moduleResolution}.json`)
    writeFileSync(config, JSON.stringify({ compilerOptions, files: ['consumer.ts'] }))
    run(process.execPath, [tool('typescript/bin/tsc'), '-p', config], project)
  }
}

/** Imports every export, and makes a backup with the command and gets it back. */
function useIt(node: string, project: string, names: readonly string[], bin: string, version: string): void {
  const imports = names.map((name, i) => `import * as m${i} from '${join('millrace', name)}'`)
  const counts = `console.log([${names.map((_, i) => `m${i}`).join(', ')}].map((one) => Object.keys(one).length).join(' '))`
  writeFileSync(join(project, 'use.js'), `${imports.join('\n')}\n${counts}\n`)
  // The contract suite registers itself with node:test, which may report on stdout after our line.
  const counted = run(node, ['use.js'], project).split('\n')[0] as string
  assert.match(counted, /^\d+( \d+)+$/)
  assert.ok(!counted.split(' ').includes('0'), `an export is empty: ${counted}`)

  const folder = mkdtempSync(join(scratch, 'use-'))
  const [world, store, out] = ['world', 'store', 'out'].map((name) => join(folder, name)) as [string, string, string]
  mkdirSync(world)
  writeFileSync(join(world, 'level.dat'), 'a world')
  // Enough for each of the command's threads, which are files of their own.
  const region = randomBytes(THREADED_BYTES)
  writeFileSync(join(world, 'region.mca'), region)
  for (let i = 0; i < THREADED_FILES; i++) writeFileSync(join(world, `${i}.json`), `{"player":${i}}`)
  const env = { MILLRACE_PASSWORD: 'package check', MILLRACE_STATE_DIR: join(folder, 'state') }
  const millrace = (...args: string[]) => run(node, [bin, ...args], folder, env)
  assert.equal(millrace('--version').trim(), version)
  millrace('backup', world, '--to', `file://${store}`)
  const from = ['--from', `file://${store}`, '--server', 'world']
  millrace('verify', 'latest', ...from)
  millrace('restore', 'latest', ...from, '--target', out)
  assert.equal(readFileSync(join(out, 'level.dat'), 'utf8'), 'a world')
  assert.ok(readFileSync(join(out, 'region.mca')).equals(region))
  assert.equal(readdirSync(out).length, THREADED_FILES + 2)
  rmSync(folder, { recursive: true })
}

/** An older Node gets one sentence and exit code 1: one that only says it is older, and a real one where there is one. */
function tooOld(bin: string): void {
  const pretend = "data:text/javascript,Object.defineProperty(process.versions, 'node', { value: '20.11.0' })"
  const trials: [string, string[]][] = [[process.execPath, ['--import', pretend]]]
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const node = join(folder, 'node')
    const { code, stdout } = attempt(node, ['--version'])
    const [, major = 0, minor = 0] = /^v(\d+)\.(\d+)/.exec(stdout)?.map(Number) ?? []
    if (code === 0 && (major < 22 || (major === 22 && minor < 15))) trials.push([node, []])
  }
  for (const [node, args] of trials) {
    const { code, stdout, stderr } = attempt(node, [...args, bin, 'list', '--from', 'file:///x'])
    assert.equal(code, 1)
    assert.equal(stdout, '')
    assert.match(stderr, /^millrace needs Node 22\.15 or newer, and this is [\d.]+\. Install a newer Node\.\n$/)
  }
  step(
    `an older Node is told so (${trials.length === 1 ? 'a newer one that says it is 20.11' : `${trials.length} tried`})`,
  )
}
