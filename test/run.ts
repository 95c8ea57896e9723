// Runs the tests: `node test/run.ts [fast|s3|slow|browser]`. In CI a skipped test fails the run unless test/may-skip.txt names
// it, so that a required test cannot quietly stop running.
import { spawn } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SERVERS, startServer, stopServer } from './support/servers.ts'

const ROOT = join(import.meta.dirname, '..')
const SUFFIX = { fast: '.test.ts', s3: '.s3test.ts', slow: '.slowtest.ts', browser: '.browsertest.ts' }
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
  const env = { ...process.env, ...(suite === 's3' ? await startServers() : {}) }
  code = await runTests(env)
  const missing = process.env.CI ? requiredSkips() : []
  if (missing.length > 0) {
    console.error(`Required tests were skipped:\n${missing.map((name) => `  ${name}`).join('\n')}`)
    code = 1
  }
} finally {
  if (suite === 's3') await stopServers()
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

/** @returns what the tests need in their environment to find the servers, and to trust their certificates. */
async function startServers(): Promise<NodeJS.ProcessEnv> {
  await stopServers()
  const started = await Promise.allSettled(SERVERS.map(startServer))
  const env: Record<string, string> = {}
  for (const result of started) {
    if (result.status === 'rejected')
      throw new Error('A server of the tests did not come up.', { cause: result.reason })
    Object.assign(env, result.value)
  }
  const certificates = [process.env.NODE_EXTRA_CA_CERTS, env.MILLRACE_S3_CA, env.MILLRACE_SWIFT_CA]
  const trusted = join(scratch, 'ca.pem')
  writeFileSync(trusted, certificates.map((path) => (path ? readFileSync(path, 'utf8') : '')).join('\n'))
  return { ...env, NODE_EXTRA_CA_CERTS: trusted }
}

async function stopServers(): Promise<void> {
  await Promise.all(SERVERS.map(stopServer))
}
