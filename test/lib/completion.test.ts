import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { bashScript } from '../../lib/cli/completion/bash.ts'
import { fishScript } from '../../lib/cli/completion/fish.ts'
import { completedCommands } from '../../lib/cli/completion/model.ts'
import { zshScript } from '../../lib/cli/completion/zsh.ts'
import { buildProgram } from '../../lib/cli/main.ts'
import { BIN, millrace, scratch } from '../support/cli.ts'

const run = promisify(execFile)

/** What is typed before the tab, and some of what must and must not be offered then. */
const CASES: { typed: string[]; offers: string[]; not?: string[] }[] = [
  { typed: ['ba'], offers: ['backup'], not: ['list'] },
  { typed: ['ver'], offers: ['verify'] },
  { typed: ['config', ''], offers: ['check', 'schema', 'example'], not: ['backup'] },
  { typed: ['config', 'check', '--se'], offers: ['--secrets'] },
  { typed: ['backup', '--keep-'], offers: ['--keep-daily', '--keep-within'], not: ['--json'] },
  { typed: ['check', '--js'], offers: ['--json'], not: ['--secrets'] },
  { typed: ['-q', 'restore', '--portable-names', ''], offers: ['refuse', 'map', 'keep'] },
  { typed: ['encrypt', '--layout', ''], offers: ['millrace', 'seed'] },
  { typed: ['completion', ''], offers: ['bash', 'zsh', 'fish'] },
  { typed: ['verify', ''], offers: ['latest'] },
  { typed: ['unpin', ''], offers: [], not: ['latest'] },
  { typed: ['list', '--key-file', 'wo'], offers: ['world.key'] },
  { typed: ['list', '--server', ''], offers: ['survival', 'creative'], not: ['disk'] },
  { typed: ['prune', '--from', 'd'], offers: ['disk'], not: ['survival'] },
]

/** A folder with a config, a file, and the command in the PATH; and the script for a shell. */
async function shellRoom(
  t: TestContext,
  shell: string,
): Promise<{ folder: string; script: string; env: NodeJS.ProcessEnv }> {
  const folder = await scratch(t)
  const bin = join(folder, 'bin')
  await mkdir(bin)
  await writeFile(join(bin, 'millrace'), `#!/bin/sh\nexec '${process.execPath}' '${BIN}' "$@"\n`)
  await chmod(join(bin, 'millrace'), 0o755)
  await writeFile(join(folder, 'world.key'), '')
  await writeFile(
    join(folder, 'millrace.yaml'),
    `destinations: { disk: { provider: filesystem, root: store } }
servers: { survival: { source: world }, creative: { source: world } }
encryption: { password: '\${MILLRACE_PASSWORD}' }
`,
  )
  const script = join(folder, 'script')
  const { code, stdout, stderr } = await millrace(['completion', shell])
  assert.equal(code, 0, stderr)
  await writeFile(script, stdout)
  return { folder, script, env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, HOME: folder } }
}

function check(offered: readonly string[], { typed, offers, not = [] }: (typeof CASES)[number]): void {
  for (const one of offers) assert.ok(offered.includes(one), `${one} after "${typed.join(' ')}": ${offered.join(', ')}`)
  for (const one of not) assert.ok(!offered.includes(one), `no ${one} after "${typed.join(' ')}"`)
}

test('bash completes commands, options, choices, files and names of the config', async (t) => {
  const { folder, script, env } = await shellRoom(t, 'bash')
  const cases = CASES.map(({ typed }) => {
    const words = ['millrace', ...typed].map((word) => `'${word}'`).join(' ')
    return `COMP_WORDS=(${words}); COMP_CWORD=${typed.length}; _millrace; printf '%s\\n' "\${COMPREPLY[@]}" =`
  })
  const { stdout, stderr } = await run('bash', ['-c', `source '${script}'\n${cases.join('\n')}`], { cwd: folder, env })
  assert.equal(stderr, '')
  const answers = stdout.split('=\n')
  for (const [at, one] of CASES.entries()) check((answers[at] as string).split('\n'), one)
})

test('fish completes them too', async (t) => {
  const { folder, script, env } = await shellRoom(t, 'fish')
  const cases = CASES.map(({ typed }) => `complete -C 'millrace ${typed.join(' ')}'; echo =`)
  const { stdout, stderr } = await run('fish', ['--no-config', '-c', `source '${script}'; ${cases.join('; ')}`], {
    cwd: folder,
    env,
  })
  assert.equal(stderr, '')
  const answers = stdout.split('=\n')
  for (const [at, one] of CASES.entries()) {
    const offered = (answers[at] as string).split('\n').map((line) => line.split('\t')[0] as string)
    check(offered, one)
  }
})

test('zsh completes them too', async (t) => {
  const { folder, script, env } = await shellRoom(t, 'zsh')
  // Completion works in a line editor alone, and so in a terminal. What is offered goes through compadd.
  await writeFile(
    join(folder, 'editor'),
    `PROMPT= LISTMAX=1000
    unset zle_bracketed_paste
    autoload -Uz compinit
    compinit -D -u
    source '${script}'
    compadd() {
      if (( ! \${@[(I)-[OAD]]} )); then local -a said; builtin compadd -A said "$@"; print -rl -- $said >> offered; fi
      builtin compadd "$@"
    }
    next() { print -r -- = >> offered; BUFFER= }
    zle -N next
    bindkey '^G' next
    zle-line-init() { print -r -- yes > ready }
    zle -N zle-line-init
    : > offered\n`,
  )
  const driver = `
    zmodload zsh/zpty
    zpty z zsh -f -i
    zpty -w z 'source ./editor'
    while [[ ! -s ready ]]; do sleep 0.1; zpty -r -t z line; done
    for typed in "$@"; do zpty -w -n z "millrace $typed"$'\\t\\a'; done
    while (( $(grep -c '^=$' offered) < $# )); do sleep 0.1; zpty -r -t z line; done
    zpty -d z`
  const typed = CASES.map((one) => one.typed.join(' '))
  await run('zsh', ['-f', '-c', driver, 'zsh', ...typed], { cwd: folder, env })
  const answers = (await readFile(join(folder, 'offered'), 'utf8')).split('=\n')
  for (const [at, one] of CASES.entries()) check((answers[at] as string).split('\n'), one)
})

test('the scripts are of all that the help shows', () => {
  const program = buildProgram(async () => {})
  const commands = completedCommands(program)
  assert.deepEqual(
    commands.filter(({ path }) => path.length === 1).map(({ path }) => path[0]),
    [...program.commands.filter((one) => !one.name().startsWith('_')).map((one) => one.name()), 'help'],
  )
  for (const write of [bashScript, fishScript, zshScript]) {
    const script = write(commands)
    for (const { options, path } of commands) {
      assert.ok(script.includes(path.at(-1) ?? ''))
      for (const { long } of options) assert.ok(script.includes(long?.replace('--', '') as string), `${path} ${long}`)
    }
  }
})
