// Runs the tests: `node test/run.ts [fast|s3|s3:full|slow|crash|browser]`. In CI a skipped test fails the run unless test/may-skip.txt names
// it, so that a required test cannot quietly stop running.
import { execFileSync, spawn } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SERVERS, startServer, stopServer } from './support/servers.ts'

const ROOT = join(import.meta.dirname, '..')
/** `atOnce`: files that run side by side. Many wait for a disk, a server or a process more than they compute. */
const SUITES = {
  fast: { suffixes: ['.test.ts'], needsServers: false, atOnce: 4 },
  s3: { suffixes: ['.s3test.ts'], needsServers: true, atOnce: 4 },
  's3:full': { suffixes: ['.s3test.ts', '.s3slowtest.ts'], needsServers: true, atOnce: 4 },
  slow: { suffixes: ['.slowtest.ts'], needsServers: false, atOnce: 2 },
  crash: { suffixes: ['.crashtest.ts'], needsServers: true, atOnce: 1 },
  browser: { suffixes: ['.browsertest.ts'], needsServers: false, atOnce: 1 },
}
const name = process.argv[2] ?? 'fast'
if (!Object.hasOwn(SUITES, name)) {
  console.error(`No suite is called ${name}. There are: ${Object.keys(SUITES).join(', ')}.`)
  process.exit(2)
}
const suite = SUITES[name as keyof typeof SUITES]

const files: string[] = []
for (const suffix of suite.suffixes) {
  const found = globSync(`test/**/*${suffix}`, { cwd: ROOT }).sort()
  if (found.length === 0) {
    console.error(`No test file ends in ${suffix}.`)
    process.exit(1)
  }
  files.push(...found)
}
if (name === 'slow') {
  const repeated = globSync('test/**/*.test.ts', { cwd: ROOT }).sort()
  files.push(...repeated.filter((file) => readFileSync(join(ROOT, file), 'utf8').includes('/support/rounds.ts')))
}

const scratch = mkdtempSync(join(tmpdir(), 'millrace-tests-'))
// Here, where what it imports is found.
const command = join(ROOT, `.test-command-${process.pid}`)
let code = 1
try {
  // Tests start the command some thousand times, and from Node 24 on its sources are stripped of types once.
  const cache = join(tmpdir(), 'millrace-compile-cache')
  const env = {
    NODE_COMPILE_CACHE: cache,
    ...(name === 'slow' ? { MILLRACE_TEST_ROUNDS: 'slow' } : {}),
    ...process.env,
    MILLRACE_TEST_COMMAND: buildCommand(),
    ...(suite.needsServers ? await startServers() : {}),
  }
  code = await runTests(env)
  const missing = process.env.CI ? requiredSkips() : []
  if (missing.length > 0) {
    console.error(`Required tests were skipped:\n${missing.map((name) => `  ${name}`).join('\n')}`)
    code = 1
  }
} finally {
  if (suite.needsServers) await stopServers()
  rmSync(scratch, { recursive: true, force: true })
  rmSync(command, { recursive: true, force: true })
}
process.exit(code)

/**
 * The command in few files, as the package has it, and beside it the programs that tests start (`childPath`): started from
 * their sources, some thousand times, they take twice the time.
 * @returns the command's path.
 */
function buildCommand(): string {
  const builds = [
    ['rolldown.config.ts', command],
    ['test/rolldown.config.ts', join(command, 'children')],
  ] as const
  for (const [config, folder] of builds) {
    execFileSync(process.execPath, [join(ROOT, 'node_modules/rolldown/bin/cli.mjs'), '-c', config, '-d', folder], {
      cwd: ROOT,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  return join(command, 'millrace.js')
}

function runTests(env: NodeJS.ProcessEnv): Promise<number> {
  const args = [
    '--test',
    `--test-concurrency=${suite.atOnce}`,
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
