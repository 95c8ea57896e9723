import { spawn } from 'node:child_process'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BIN } from './cli.ts'

/** The commands of a recovery sheet in Markdown, but for those that install. */
export function sheetCommands(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1] as string)
  return blocks.filter((block) => !block.startsWith('npm install'))
}

/**
 * Follows one block of a sheet's commands in bash, in a new folder that is the home as well, with nothing in the
 * environment but where `millrace` is.
 * @param byHand what is typed where the sheet asks for something, a line each.
 * @returns what was said, and the folder.
 */
export async function followSheet(
  commands: string,
  byHand: readonly string[],
  scratch: string,
): Promise<{ home: string; code: number | null; said: string }> {
  const home = join(scratch, `home-${Math.random().toString(36).slice(2)}`)
  const bin = join(home, 'bin')
  await mkdir(bin, { recursive: true })
  // What `npm install -g` puts there.
  await writeFile(join(bin, 'millrace'), `#!/bin/sh\nexec '${process.execPath}' '${BIN}' "$@"\n`)
  await chmod(join(bin, 'millrace'), 0o755)
  const child = spawn('bash', ['-e', '-c', commands], {
    cwd: home,
    env: { HOME: home, PATH: `${bin}:/usr/bin:/bin` },
    stdio: 'pipe',
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
  }
  child.stdin.on('error', () => {})
  child.stdin.end(byHand.map((line) => `${line}\n`).join(''))
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  return { home, code, said }
}
