import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { parseEvent } from '../../lib/cli/events.ts'
import { assertNoSecrets } from './no-secrets.ts'

/** As test/run.ts has built it; its source where a test file runs by itself. */
export const BIN = process.env.MILLRACE_TEST_COMMAND ?? join(import.meta.dirname, '../../lib/cli/bin.ts')
export const PASSWORD = 'correct horse battery staple'

/** Where the command keeps its state in these tests, and not in the home of whoever runs them. */
export const STATE_FOLDER = mkdtempSync(join(tmpdir(), 'millrace-state-'))
process.env.MILLRACE_STATE_DIR = STATE_FOLDER
// A test runner on a terminal sets it for its tests, which look for text without colours.
delete process.env.FORCE_COLOR
process.on('exit', () => rmSync(STATE_FOLDER, { recursive: true, force: true }))

export interface CliResult {
  code: number | null
  stdout: Buffer
  stderr: string
  /** The lines of `--json` output, each held against its type. */
  events(): Record<string, unknown>[]
}

export interface CliOptions {
  env?: NodeJS.ProcessEnv
  input?: Buffer
  cwd?: string
  /** Standard input stays open for the test to write to. */
  openInput?: boolean
  /** The run is asked for a secret, and shows it. */
  showsSecret?: boolean
}

/**
 * Runs the command as a process of its own, with a password in its environment unless `env` says otherwise.
 * @throws AssertionError when its output holds a secret that it was given.
 */
export function millrace(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return startMillrace(args, options).result
}

/** The same, while it runs: for whoever has to stop it half-way. */
export function startMillrace(
  args: readonly string[],
  options: CliOptions = {},
): { child: ChildProcessWithoutNullStreams; result: Promise<CliResult> } {
  const env = { ...process.env, MILLRACE_PASSWORD: PASSWORD, MILLRACE_STATE_DIR: STATE_FOLDER, ...options.env }
  const child = spawn(process.execPath, [BIN, ...args], { cwd: options.cwd, env, stdio: 'pipe' })
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (chunk) => out.push(chunk))
  child.stderr.on('data', (chunk) => err.push(chunk))
  child.stdin.on('error', () => {})
  if (!options.openInput) child.stdin.end(options.input ?? '')
  const result = new Promise<CliResult>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      const stdout = Buffer.concat(out)
      try {
        if (!options.showsSecret) assertNoSecrets(Buffer.concat([...out, ...err]), { args, env })
      } catch (error) {
        reject(error)
        return
      }
      resolve({
        code,
        stdout,
        stderr: Buffer.concat(err).toString(),
        events: () =>
          stdout
            .toString()
            .trim()
            .split('\n')
            .filter((line) => line !== '')
            .map((line) => parseEvent(line) as unknown as Record<string, unknown>),
      })
    })
  })
  return { child, result }
}

/** A folder that is removed when the test ends. */
export async function scratch(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}
