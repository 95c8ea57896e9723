// Runs the command many times in one process, as a process of its own costs a second. Reads `ManyCase[]` as JSON from
// standard input, and writes `ManyResult[]` to standard output.
import { text } from 'node:stream/consumers'
import { main } from '../../lib/cli/main.ts'

export interface ManyCase {
  args: string[]
  env?: Record<string, string>
  cwd?: string
}

export interface ManyResult {
  code: number
  stdout: string
  stderr: string
}

process.stdout.setMaxListeners(0)
const cases = JSON.parse(await text(process.stdin)) as ManyCase[]
const results: ManyResult[] = []
const [out, err] = [process.stdout.write, process.stderr.write]
for (const { args, env = {}, cwd } of cases) {
  const before = { ...process.env }
  Object.assign(process.env, env)
  if (cwd !== undefined) process.chdir(cwd)
  const result: ManyResult = { code: -1, stdout: '', stderr: '' }
  const into = (name: 'stdout' | 'stderr') =>
    ((chunk: string | Uint8Array, ...rest: unknown[]) => {
      result[name] += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString()
      const done = rest.at(-1)
      if (typeof done === 'function') process.nextTick(done as () => void)
      return true
    }) as typeof process.stdout.write
  process.stdout.write = into('stdout')
  process.stderr.write = into('stderr')
  try {
    result.code = await main(args)
  } finally {
    process.stdout.write = out
    process.stderr.write = err
  }
  for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
  Object.assign(process.env, before)
  results.push(result)
}
process.stdout.write(JSON.stringify(results))
