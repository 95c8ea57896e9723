// Runs the tests: `node test/run.ts [fast|s3|slow]`. In CI a skipped test fails the run unless test/may-skip.txt names
// it, so that a required test cannot quietly stop running.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '..')
const SUFFIX = { fast: '.test.ts', s3: '.s3test.ts', slow: '.slowtest.ts' }
const suite = (process.argv[2] ?? 'fast') as keyof typeof SUFFIX
if (!(suite in SUFFIX)) {
  console.error(`No suite is called ${suite}. There are: ${Object.keys(SUFFIX).join(', ')}.`)
  process.exit(2)
}

const files = globSync(`test/**/*${SUFFIX[suite]}`, { cwd: ROOT }).sort()
if (files.length === 0) {
  console.error(`No test file ends in ${SUFFIX[suite]}.`)
  process.exit(1)
}

const scratch = mkdtempSync(join(tmpdir(), 'millrace-tests-'))
let code = 1
try {
  const env = { ...process.env, ...(suite === 's3' ? startCeph() : {}) }
  code = await runTests(env)
  const missing = process.env.CI ? requiredSkips() : []
  if (missing.length > 0) {
    console.error(`Required tests were skipped:\n${missing.map((name) => `  ${name}`).join('\n')}`)
    code = 1
  }
} finally {
  if (suite === 's3') spawnSync('bash', [join(ROOT, 'test/servers/ceph-down.sh')], { stdio: 'inherit' })
  rmSync(scratch, { recursive: true, force: true })
}
process.exit(code)

function runTests(env: NodeJS.ProcessEnv): Promise<number> {
  const args = [
    '--test',
    '--test-concurrency=2',
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    '--test-reporter=tap',
    `--test-reporter-destination=${join(scratch, 'tap')}`,
    ...files,
  ]
  // Another runtime than the one that runs this script: MILLRACE_NODE=node_modules/node22/bin/node
  const child = spawn(process.env.MILLRACE_NODE ?? process.execPath, args, { cwd: ROOT, env, stdio: 'inherit' })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  return new Promise((resolve) => child.on('exit', (exit) => resolve(exit ?? 1)))
}

function requiredSkips(): string[] {
  const tap = readFileSync(join(scratch, 'tap'), 'utf8')
  const allowed = readFileSync(join(ROOT, 'test/may-skip.txt'), 'utf8').split('\n')
  const skipped = [...tap.matchAll(/^\s*(?:not )?ok \d+ - (.*?) # (?:SKIP|TODO)/gm)].map((match) => match[1] as string)
  return skipped.filter((name) => !allowed.includes(name.replaceAll('\\#', '#')))
}

function startCeph(): NodeJS.ProcessEnv {
  if (existsSync(join(ROOT, '.ceph')))
    spawnSync('bash', [join(ROOT, 'test/servers/ceph-down.sh')], { stdio: 'inherit' })
  const up = spawnSync('bash', [join(ROOT, 'test/servers/ceph-up.sh')], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  if (up.status !== 0) throw new Error(`The S3 server did not come up (exit code ${up.status}).`)
  const line = up.stdout.trim().split('\n').at(-1) as string
  console.log(line.replace(/(SECRET_ACCESS_KEY=)\S+/, '$1…'))
  return Object.fromEntries([...line.matchAll(/(\w+)=(\S+)/g)].map((match) => [match[1], match[2]]))
}
