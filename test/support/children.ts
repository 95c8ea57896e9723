import { dirname, join } from 'node:path'

/**
 * The program of a process that a test starts.
 * @param name of `<name>-child.ts` here.
 * @returns what test/run.ts has made of it, or its source where a test file runs by itself.
 */
export function childPath(name: string): string {
  const command = process.env.MILLRACE_TEST_COMMAND
  return command
    ? join(dirname(command), 'children', `${name}-child.js`)
    : join(import.meta.dirname, `${name}-child.ts`)
}
