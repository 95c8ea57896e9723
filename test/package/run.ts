import { spawnSync } from 'node:child_process'
import { delimiter, dirname, join } from 'node:path'

export const ROOT = join(import.meta.dirname, '../..')

export interface Ran {
  /** null when it could not be started. */
  code: number | null
  stdout: string
  stderr: string
}

/** Runs a program to its end, whatever that is. The Node that runs this is the first in its PATH. */
export function attempt(program: string, args: readonly string[], cwd = ROOT, env: NodeJS.ProcessEnv = {}): Ran {
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter)
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: path, ...env },
    maxBuffer: 64 * 1024 * 1024,
  })
  return { code: status, stdout: stdout ?? '', stderr: stderr ?? '' }
}

/** Runs a program that has to succeed. @returns what it wrote to its standard output. */
export function run(program: string, args: readonly string[], cwd = ROOT, env: NodeJS.ProcessEnv = {}): string {
  const { code, stdout, stderr } = attempt(program, args, cwd, env)
  if (code === 0) return stdout
  throw new Error(`${program} ${args.join(' ')}\nended with ${code}:\n${stdout}${stderr}`)
}
