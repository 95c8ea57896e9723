// What the examples share and is no part of what they show: a folder to work in, and lines of output.
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

/**
 * Runs an example in the folder that is its first argument, which stays; or in a temporary one, which is removed
 * whether it succeeds or fails.
 */
export async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const given = process.argv[2]
  if (given !== undefined) {
    await mkdir(given, { recursive: true })
    return work(resolve(given))
  }
  const folder = await mkdtemp(join(tmpdir(), 'millrace-example-'))
  try {
    await work(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** One line, or several, under a heading. */
export function say(what: string, text: string): void {
  console.log(`${`${what}:`.padEnd(15)} ${text.replaceAll('\n', `\n${' '.repeat(16)}`)}`)
}

/** @returns what `work` rejects with. @throws when it succeeds, which an example did not mean it to. */
export async function failureOf(work: Promise<unknown>): Promise<Error> {
  return work.then(
    () => {
      throw new Error('This succeeded, and was meant to fail.')
    },
    (error) => error,
  )
}

/** `1536000` as `1,536,000 bytes`. */
export function count(bytes: number): string {
  return `${bytes.toLocaleString('en')} bytes`
}
