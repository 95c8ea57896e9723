import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

// Programs that some tests compare with. Where one is missing they are skipped; CI installs all and lets none be.

function runs(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

/** For a test's `skip`. */
export const NO_ZSTD = runs('zstd', ['--version']) ? false : 'the zstd command is not installed'

/** For a test's `skip`. */
export const NO_RCLONE = runs('rclone', ['version']) ? false : 'rclone is not installed'

// A distribution's own Python has the distribution's packages; another one may come first in the PATH.
/** One that the independent reader runs on; undefined where there is none. */
export const python = ['python3', '/usr/bin/python3'].find((one) => runs(one, ['-c', 'import cryptography']))

/** For a test's `skip`. */
export const NO_READER = !python ? 'Python with the cryptography package is not installed' : NO_ZSTD

/** Runs the independent reader. @returns its exit code and what it printed. */
export function independentReader(args: readonly string[]): { code: number | null; stdout: Buffer; stderr: string } {
  const script = join(import.meta.dirname, '../reader/millrace_reader.py')
  const { status, stdout, stderr } = spawnSync(python as string, [script, ...args], { maxBuffer: 2 ** 30 })
  return { code: status, stdout, stderr: stderr.toString() }
}
