// `npm run -s example -- NAME [FOLDER]` runs examples/NAME.ts; without a name it says which there are.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const NAMES = ['pipe-by-hand', 'custom-transform', 'fan-out', 'one-file-by-ranges', 'progress-and-events', 'demo']

const [name, ...rest] = process.argv.slice(2)
if (name === undefined || !NAMES.includes(name)) {
  console.error(`Give the name of an example: ${NAMES.join(', ')}. examples/README.md says what each shows.`)
  process.exit(2)
}
const program = join(import.meta.dirname, `${name}.ts`)
process.exit(spawnSync(process.execPath, [program, ...rest], { stdio: 'inherit' }).status ?? 1)
