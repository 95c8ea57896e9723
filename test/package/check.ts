// Packs the package as it would be published, installs it into an empty project, and uses it from there: every export
// imports, its types are found, and the command runs. `npm run check:package`.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '../..')
const scratch = mkdtempSync(join(tmpdir(), 'millrace-package-'))
const run = (program: string, args: readonly string[], cwd = scratch, env: NodeJS.ProcessEnv = {}) =>
  execFileSync(program, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  })

try {
  run('npm', ['run', '-s', 'build'], ROOT)
  run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', scratch], ROOT)
  const tarball = readdirSync(scratch).find((name) => name.endsWith('.tgz')) as string
  const files = run('tar', ['tzf', tarball]).trim().split('\n')
  for (const wanted of ['README.md', 'CHANGELOG.md', 'LICENSE', 'dist/lib/cli/bin.js', 'dist/lib/index.d.ts']) {
    assert.ok(files.includes(`package/${wanted}`), `${wanted} is not in the package`)
  }
  const strangers = files.filter(
    (name) =>
      !/^package\/(dist\/(lib|transforms|adapters|test\/contract)\/|transforms\/FORMAT\.md$|[A-Z]+(\.md)?$|package\.json$)/.test(
        name,
      ),
  )
  assert.deepEqual(strangers, [], 'files that nobody asked for are in the package')

  const home = join(scratch, 'node_modules/millrace')
  mkdirSync(home, { recursive: true })
  run('tar', ['xzf', tarball, '--strip-components=1', '-C', home])
  // The dependencies as they are installed here, without the registry: only millrace itself is what is tested.
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (name.startsWith('.') || name === 'millrace') continue
    symlinkSync(join(ROOT, 'node_modules', name), join(scratch, 'node_modules', name))
  }
  const manifest = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  for (const dependency of Object.keys(manifest.dependencies))
    assert.ok(existsSync(join(scratch, 'node_modules', dependency)), dependency)

  const names = Object.keys(manifest.exports).filter((name) => name !== './package.json')
  const imports = names.map((name, i) => `import * as m${i} from ${JSON.stringify(join('millrace', name))}`).join('\n')
  writeFileSync(join(scratch, 'package.json'), '{"type":"module"}')
  writeFileSync(
    join(scratch, 'use.ts'),
    `${imports}\nconst all: object[] = [${names.map((_, i) => `m${i}`).join(', ')}]\nfor (const one of all) if (Object.keys(one).length === 0) throw new Error('an export is empty')\nconsole.log(all.length)\n`,
  )
  assert.equal(run(process.execPath, ['use.ts']).trim(), String(names.length))
  const options = [
    '--noEmit',
    '--module',
    'nodenext',
    '--strict',
    '--skipLibCheck',
    'false',
    '--types',
    'node',
    '--target',
    'es2024',
    '--lib',
    'es2024,dom',
  ]
  run(process.execPath, [
    join(ROOT, 'node_modules/typescript/bin/tsc'),
    ...options.filter((one) => one !== '--skipLibCheck' && one !== 'false'),
    '--skipLibCheck',
    'use.ts',
  ])

  const bin = join(home, manifest.bin.millrace)
  assert.equal(run(bin, ['--version']).trim(), manifest.version)
  const world = join(scratch, 'world')
  mkdirSync(world)
  writeFileSync(join(world, 'level.dat'), 'a world')
  const env = { MILLRACE_PASSWORD: 'package check' }
  run(bin, ['backup', world, '--to', `file://${scratch}/store`], scratch, env)
  run(
    bin,
    ['restore', 'latest', '--from', `file://${scratch}/store`, '--server', 'world', '--target', 'out'],
    scratch,
    env,
  )
  assert.equal(readFileSync(join(scratch, 'out/level.dat'), 'utf8'), 'a world')
  console.log(`The package has ${files.length} files; its ${names.length} exports and its command work.`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
