import { recordRun } from '../../lib/history.ts'

// Records runs into a small log that is put aside often: node history-child.ts FOLDER NUMBER RUNS
const [folder = '', number, count] = process.argv.slice(2)
for (let n = 0; n < Number(count); n += 1) {
  await recordRun(
    folder,
    {
      ...{ at: new Date().toISOString(), command: 'backup', server: `p${number}-${n}`, outcome: 'ok' },
      ...{ exitCode: 0, elapsedMs: n },
    },
    { fileBytes: 4000, totalBytes: 10_000_000 },
  )
}
