// What a program can follow of a backup: progress with rate and ETA, warnings, hooks, every operation on the store, and
// how it ended. Nothing of millrace prints by itself: that is for the program to do.
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { openStorage, type StorageEvent, withObserver } from '../adapters/index.ts'
import { writeWorld } from '../bench/world.ts'
import { type BackupError, openBackups, type Progress } from '../lib/index.ts'
import { count, failureOf, inFolder, say } from './support.ts'

await inFolder(async (folder) => {
  const world = join(folder, 'world')
  writeWorld(world, { bytes: 24 * 1024 * 1024 })
  // No archive holds a fifo, so there is something to warn of.
  execFileSync('mkfifo', [join(world, 'console')])
  const storage = withObserver(await openStorage(`file://${folder}/store`), sayEvent)
  const backups = await openBackups({ storage, server: 'survival', password: 'an example password' })

  const report = join(folder, 'report.json')
  const snapshot = await backups.create(world, {
    onProgress: (progress) => say('Progress', `${describe(progress)}, ${count(progress.storedBytes)} stored`),
    onWarning: ({ kind, path, message }) => say('Warning', `${kind} ${path}: ${message}`),
    // It is given what was made, as a line of JSON on its standard input.
    hooks: { after: 'cat > "$REPORT"', env: { REPORT: report } },
  })
  say('Snapshot', `${snapshot.id}: ${count(snapshot.bytes)} -> ${count(snapshot.storedBytes)}`)
  say('Hook', `told of ${JSON.parse(await readFile(report, 'utf8')).snapshot.id}`)

  const verified = await backups.verify(snapshot.id, { onProgress: (progress) => say('Verifying', describe(progress)) })
  say('Verified', verified.status)

  // A signal ends what is under way, and nothing of it is left in the store.
  const stop = new AbortController()
  const aborted = await failureOf(backups.create(endless(stop), { signal: stop.signal }))
  say('Aborted', `${aborted.name}; snapshots in the store: ${(await backups.list()).length}`)

  const target = join(folder, 'restored')
  const restored = await backups.restore('latest', target, {
    onProgress: (progress) => say('Restoring', describe(progress)),
  })
  say('Restored', `${restored.files} files, ${count(restored.bytes)}`)

  // What is refused or fails has a code, to be told by; the message is for people.
  const refused = (await failureOf(backups.restore('latest', target))) as BackupError
  say('Refused', `${refused.code}: ${refused.message}`)
  await backups.close()
  await storage.close()
})

/** A source that never ends, until somebody presses the button. */
function endless(stop: AbortController): Readable {
  let reads = 0
  return new Readable({
    read() {
      reads += 1
      if (reads === 300) stop.abort()
      this.push(randomBytes(64 * 1024))
    },
  })
}

function describe({ bytes, totalBytes, bytesPerSecond, etaMs }: Progress): string {
  const of = totalBytes === undefined ? '' : ` of ${count(totalBytes)}`
  const left = etaMs === undefined ? '' : `, ${(etaMs / 1000).toFixed(1)} s to go`
  return `${count(bytes)}${of}, ${count(Math.round(bytesPerSecond))}/s${left}`
}

/** Called when an operation is over. There is nothing secret in an event, so it may stand in a log. */
function sayEvent({ operation, key, bytes, ms, outcome, code }: StorageEvent): void {
  // The small files by which runs keep out of each other's way would fill the screen here.
  if (key.includes('/.lease/')) return
  const moved = bytes > 0 ? `, ${count(bytes)}` : ''
  say('Store', `${operation} ${key}${moved}: ${code ?? outcome} in ${ms.toFixed(0)} ms`)
}
