// `npm run demo`: makes a small world, backs it up twice into a temporary folder, lists, inspects, verifies and restores
// it, compares what came back, and says what it did. No account, no network.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, globSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatBytes, formatDuration, formatRate, formatRatio } from '../lib/cli/format.ts'
import { type CreatedSnapshot, openBackups } from '../lib/index.ts'
import { say } from './support.ts'

const WORLD_BYTES = 64 * 1024 * 1024

const scratch = mkdtempSync(join(tmpdir(), 'millrace-demo-'))
try {
  const world = join(scratch, 'world')
  // In a process of its own, so that the peak of memory at the end is millrace's.
  const maker = join(import.meta.dirname, '../bench/world.ts')
  const made = JSON.parse(execFileSync(process.execPath, [maker, world, String(WORLD_BYTES)], { encoding: 'utf8' }))
  say('A world', `${made.files} files, ${formatBytes(made.bytes)}, in ${world}`)

  const backups = await openBackups({
    storage: `file://${scratch}/store`,
    server: 'survival',
    password: 'a demo password',
  })
  sayBackup('First backup', await backups.create(world))
  appendFileSync(join(world, 'level.dat'), 'a day later')
  sayBackup('Second backup', await backups.create(world))

  const snapshots = await backups.list()
  say(
    'In the store',
    snapshots
      .map(
        ({ id, storedBytes, complete }) =>
          `${id}  ${formatBytes(storedBytes)}  ${complete ? 'complete' : 'unfinished'}`,
      )
      .join('\n'),
  )

  const { head, frames, encryption } = await backups.inspect('latest')
  say(
    'Inspected',
    `${head?.files} files, ${formatBytes(head?.bytes ?? 0)} of archive in ${frames} zstd frames, AES-256-GCM in frames of ${formatBytes(encryption?.frameBytes ?? 0)}`,
  )

  const verified = await backups.verify('latest')
  say(
    'Verified',
    `${verified.status}: every byte was read, authenticated, decompressed and hashed in ${formatDuration(verified.elapsedMs)}`,
  )

  const target = join(scratch, 'restored')
  const restored = await backups.restore('latest', target)
  say(
    'Restored',
    `${restored.files} files in ${formatDuration(restored.elapsedMs)}, ${formatRate((restored.bytes * 1000) / restored.elapsedMs)}`,
  )

  assert.equal(verified.status, 'ok')
  assert.equal(snapshots.length, 2)
  const peak = process.resourceUsage().maxRSS * 1024
  const [before, after] = [digests(world), digests(target)]
  assert.equal(after.length, before.length)
  for (const [i, line] of before.entries()) assert.equal(after[i], line)
  say('Compared', 'every file came back as it was: names, contents, modes and times')
  await backups.close()
  say('Peak memory', `${formatBytes(peak)}, the runtime with its TypeScript stripper among it`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

function sayBackup(what: string, { id, bytes, storedBytes, elapsedMs, sha256 }: CreatedSnapshot): void {
  say(
    what,
    `${id}\n${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)}) in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}\nSHA-256 ${sha256}`,
  )
}

/** A line for each file and folder: path, mode, time to the ms (a double holds no more), content. */
function digests(folder: string): string[] {
  return globSync('**', { cwd: folder })
    .sort()
    .map((path) => {
      const found = statSync(join(folder, path))
      const content = found.isFile() ? readFileSync(join(folder, path)) : ''
      const digest = createHash('sha256').update(content).digest('hex')
      return `${path} ${found.mode.toString(8)} ${Math.round(found.mtimeMs)} ${digest}`
    })
}
