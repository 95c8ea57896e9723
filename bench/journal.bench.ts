// What does a journal cost where nothing fails? Pairs of backups, with one and without, in turn. The bar: 2 % of wall time
// and 1 MiB of memory. MILLRACE_BENCH_BYTES sets how much is backed up (100 GiB), MILLRACE_BENCH_RUNS how many pairs (3),
// MILLRACE_BENCH_JOURNALS where the journals are (the folder for temporary files, which should be a disk: they are synced).
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import { build, publish, ROOT, withFolder } from './support.ts'
import { seededBytes } from './world.ts'

const MiB = 2 ** 20
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 100 * 2 ** 30)
/** What is read again and again; zstd sees none of it twice, as frames are smaller. */
const BLOCK_BYTES = Math.min(BYTES, 1024 * MiB)
const PIECE_BYTES = 4 * MiB
/** The way to a data centre and back. */
const ANSWER_MS = 20
const TIME_BAR = 1.02
const MEMORY_BAR_MIB = 1
const KINDS = { without: 'without a journal', with: 'with a journal' }
type Kind = keyof typeof KINDS
/** `heapBytes`: the median of what lived in V8's heap, counted while it ran. */
type Run = Work & { peakBytes: number; usualBytes: number; heapBytes: number }

build()
const journals = mkdtempSync(join(process.env.MILLRACE_BENCH_JOURNALS ?? tmpdir(), 'millrace-bench-'))
try {
  await withFolder(bench)
} finally {
  rmSync(journals, { recursive: true })
}

async function bench(folder: string): Promise<void> {
  const block = join(folder, 'block')
  writeBlock(block)
  const times = Math.ceil(BYTES / BLOCK_BYTES)
  const child = new Child('journal-child', folder)
  const runs: Record<Kind, Run[]> = { without: [], with: [] }
  for (let run = 0; run < RUNS; run += 1) {
    // Each is the first of a pair as often.
    const kinds: Kind[] = run % 2 === 0 ? ['without', 'with'] : ['with', 'without']
    for (const kind of kinds) {
      const { url, env, server } = await startStore()
      const given = [url, String(times * BLOCK_BYTES), kind === 'with' ? journals : '-']
      const made = await child.run<Run>([...given, 'cat', ...Array(times).fill(block)], { env })
      server.kill()
      await once(server, 'exit')
      runs[kind].push(made)
      console.error(
        `${KINDS[kind]}: ${made.seconds.toFixed(1)} s, ${formatBytes(made.usualBytes)}, at most ${formatBytes(made.peakBytes)}`,
      )
    }
  }
  const time = medianOf(runs.with, 'seconds') / medianOf(runs.without, 'seconds')
  const cpu = medianOf(runs.with, 'cpuSeconds') / medianOf(runs.without, 'cpuSeconds')
  const more = (field: 'heapBytes' | 'usualBytes' | 'peakBytes') =>
    (medianOf(runs.with, field) - medianOf(runs.without, field)) / MiB
  const [heap, usual, peak] = [more('heapBytes'), more('usualBytes'), more('peakBytes')]
  publish(
    'journal',
    `A backup of ${formatBytes(times * BLOCK_BYTES)} to Backblaze B2 with a journal, of one without: ${time.toFixed(3)} of its wall time (bar ${TIME_BAR}), ${cpu.toFixed(3)} of its CPU time, ${signed(heap)} MiB of what lives in the heap (bar ${MEMORY_BAR_MIB}), ${signed(usual)} MiB of the resident set, ${signed(peak)} MiB at its peak. ${runsText(RUNS)}, in turn.`,
    ['what', 'seconds', 'CPU s', 'live heap, MiB', 'RSS, MiB', 'peak RSS, MiB', 'stored'],
    (Object.keys(KINDS) as Kind[]).map((kind) => [
      KINDS[kind],
      withRuns(runs[kind].map(({ seconds }) => seconds)),
      withRuns(runs[kind].map(({ cpuSeconds }) => cpuSeconds)),
      withRuns(inMiB(runs[kind].map(({ heapBytes }) => heapBytes))),
      withRuns(inMiB(runs[kind].map(({ usualBytes }) => usualBytes)), 1),
      withRuns(inMiB(runs[kind].map(({ peakBytes }) => peakBytes)), 1),
      formatBytes(medianOf(runs[kind], 'bytesOut')),
    ]),
    { runs, time, cpu, heap, usual, peak },
    [
      `The store is a fake that speaks the protocol of B2 over real HTTP on the same machine, takes the SHA-1 of all parts, answers each after ${ANSWER_MS} ms, and keeps none of their bytes. It has its share of the same cores. Over a line that is slower, a journal costs less of the time.`,
      'The source is a program that reads one file of world-like bytes again and again. Each in a process of its own, with the built package and all defaults, its heap held as the command holds its own. The journal is on a disk, and synced once a part.',
      'The buffers are the same ones with and without a journal: the pools of the pipeline and the parts on their way, whose number changes all the time. What a journal adds are objects in the heap, and these are counted after a collection, every five seconds. The resident set of a process differs by several MiB from that of the same process started again, with or without a journal.',
    ],
  )
}

function signed(value: number): string {
  return `${value < 0 ? '' : '+'}${value.toFixed(1)}`
}

function inMiB(sizes: readonly number[]): number[] {
  return sizes.map((bytes) => bytes / MiB)
}

/** As compressible as a world. */
function writeBlock(file: string): void {
  const random = seededBytes('journal')
  for (let at = 0; at < BLOCK_BYTES; at += PIECE_BYTES) {
    const piece = random(Math.min(PIECE_BYTES, BLOCK_BYTES - at))
    for (let hole = 4096; hole < piece.length; hole += 6144) piece.fill(0, hole, hole + 2048)
    appendFileSync(file, piece)
  }
}

async function startStore(): Promise<{ url: string; env: NodeJS.ProcessEnv; server: ChildProcessWithoutNullStreams }> {
  const server = spawn(process.execPath, [join(ROOT, 'test/fakes/b2.main.ts'), '--discard', `--answer-ms=${ANSWER_MS}`])
  server.stderr.resume()
  const [line] = (await once(server.stdout, 'data')) as [Buffer]
  const told = Object.fromEntries([...line.toString().matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name, value]))
  return {
    server,
    url: `b2://${told.BUCKET}?endpoint=${told.ORIGIN}`,
    env: { B2_APPLICATION_KEY_ID: told.KEY_ID, B2_APPLICATION_KEY: told.APPLICATION_KEY },
  }
}
