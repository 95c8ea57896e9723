// One file out of a snapshot by ranges. What is read is the end of the object, with the index, and the zstd frames of
// 4 MiB that hold the file: about as much out of a hundred gigabytes as out of this small world. An observer around the
// store counts it.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { openStorage, type StorageEvent, withObserver } from '../adapters/index.ts'
import { writeWorld } from '../bench/world.ts'
import { openBackups } from '../lib/index.ts'
import { count, inFolder, say } from './support.ts'

await inFolder(async (folder) => {
  const world = join(folder, 'world')
  const made = writeWorld(world, { bytes: 40 * 1024 * 1024 })
  const events: StorageEvent[] = []
  const storage = withObserver(await openStorage(`file://${folder}/store`), (event) => events.push(event))
  const backups = await openBackups({ storage, server: 'survival', password: 'an example password' })
  const { id, storedBytes } = await backups.create(world)
  say('Stored', `${made.files} files, ${count(made.bytes)} -> ${count(storedBytes)}, as ${id}`)

  for (const path of ['playerdata/7/player_7.json', 'region/r.0.0.mca']) {
    events.length = 0
    const found = await buffer(await backups.read('latest', path))
    assert.ok(found.equals(await readFile(join(world, path))))
    sayRead(path, found.length, storedBytes, events)
  }

  // The same by `restore`, which makes files of what it selects, with their modes and times.
  events.length = 0
  const [target, include] = [join(folder, 'restored'), ['playerdata/7', 'level.dat']]
  const { files } = await backups.restore('latest', target, { include })
  const paths = ['level.dat', 'playerdata/7/player_7.json']
  assert.equal(files, paths.length)
  let bytes = 0
  for (const path of paths) {
    const found = await readFile(join(target, path))
    assert.ok(found.equals(await readFile(join(world, path))))
    bytes += found.length
  }
  sayRead(include.join(' and '), bytes, storedBytes, events)
  await backups.close()
  await storage.close()
})

function sayRead(what: string, bytes: number, storedBytes: number, events: readonly StorageEvent[]): void {
  const reads = events.filter(({ operation }) => operation === 'readRange' || operation === 'createReadStream')
  const read = reads.reduce((sum, event) => sum + event.bytes, 0)
  const share = ((100 * read) / storedBytes).toFixed(1)
  say(
    'Read',
    `${what}: ${count(bytes)}, the same as they were\nfor ${count(read)} of ${count(storedBytes)} (${share} %) in ${reads.length} reads`,
  )
}
