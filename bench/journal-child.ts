// A backup of what a program gives, with a journal or without, in a process of its own, for journal.bench.ts:
// `DIST STORE BYTES JOURNALS PROGRAM…`, where JOURNALS is a folder or `-`.
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** So often everything that is dead is collected, and what lives is counted. */
const COUNT_MS = 5000

const [dist = '', storage = '', bytesText = '', journals = '-', ...command] = process.argv.slice(2)
const { openBackups } = (await import(join(dist, 'lib/backups.js'))) as typeof import('../lib/backups.ts')
const { holdHeap } = (await import(join(dist, 'lib/heap.js'))) as typeof import('../lib/heap.ts')

holdHeap()
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const live: number[] = []
const count = setInterval(() => {
  collect()
  live.push(process.memoryUsage().heapUsed)
}, COUNT_MS)
const begun = performance.now()
const backups = await openBackups({ storage, server: 'world', password: 'a bench' })
const made = await backups.create(
  { command: command as [string, ...string[]] },
  journals === '-' ? {} : { journal: { folder: journals, resume: true } },
)
await backups.close()
clearInterval(count)
const seconds = (performance.now() - begun) / 1000
if (made.bytes !== Number(bytesText)) throw new Error(`Of ${bytesText} bytes ${made.bytes} were backed up.`)
const { user, system } = process.cpuUsage()
const heapBytes = live.sort((a, b) => a - b)[live.length >> 1] ?? process.memoryUsage().heapUsed
const cpuSeconds = (user + system) / 1e6
console.log(JSON.stringify({ seconds, cpuSeconds, bytesIn: made.bytes, bytesOut: made.storedBytes, heapBytes }))
