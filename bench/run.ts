// `npm run bench [-- NAME…]`: runs the benches, all or those named. Each prints a table and writes its dated results.
// With MILLRACE_BENCH_SCHEDULER=rr, which takes root, all that is measured runs under Linux's SCHED_RR (sched(7)): a
// thread that wakes takes a core that idles. The kernels of some virtual machines have it wait for a busy one otherwise.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const BENCHES = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.bench.ts'))
  .map((name) => name.slice(0, -'.bench.ts'.length))
const SCHEDULER = process.env.MILLRACE_BENCH_SCHEDULER
if (SCHEDULER !== undefined && SCHEDULER !== 'rr') {
  console.error('MILLRACE_BENCH_SCHEDULER is rr, or is left out.')
  process.exit(2)
}
const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !BENCHES.includes(name))
if (unknown.length > 0) {
  console.error(`No bench is called ${unknown.join(', ')}. There are: ${BENCHES.join(', ')}.`)
  process.exit(2)
}
for (const name of wanted.length > 0 ? wanted : BENCHES) {
  const bench = [process.execPath, join(import.meta.dirname, `${name}.bench.ts`)]
  const [program = '', ...args] = SCHEDULER === 'rr' ? ['chrt', '--rr', '1', ...bench] : bench
  const { status, error } = spawnSync(program, args, { stdio: 'inherit' })
  if (error) {
    console.error(`${program} cannot be run (${error.message}). MILLRACE_BENCH_SCHEDULER=rr needs util-linux.`)
    process.exit(1)
  }
  if (status !== 0 && SCHEDULER)
    console.error('Where chrt was not permitted: MILLRACE_BENCH_SCHEDULER=rr takes root, or CAP_SYS_NICE.')
  if (status !== 0) process.exit(status ?? 1)
}
