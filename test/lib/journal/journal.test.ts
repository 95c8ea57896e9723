import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { BackupError } from '../../../lib/errors.ts'
import { journalFile, listJournals } from '../../../lib/journal/folder.ts'
import { decodeJournal, JOURNAL_HEADER_BYTES } from '../../../lib/journal/format.ts'
import { Journal, readJournal } from '../../../lib/journal/journal.ts'
import { ownerState, thisRun } from '../../../lib/journal/owner.ts'
import type { JournalHead } from '../../../lib/journal/records.ts'
import { sample } from '../../support/streams.ts'

const folder = mkdtempSync(join(tmpdir(), 'millrace-test-'))
after(() => rmSync(folder, { recursive: true }))

const HEAD: JournalHead = {
  v: 1,
  server: 'survival',
  id: '2026-11-28T01-00-00.000Z-abcd',
  tool: 'millrace/0.1.0',
  zstd: '1.5.7',
  source: '/srv/world',
  location: 's3://worlds/',
  encrypted: true,
  options: { level: 3, selection: '' },
}
let names = 0

function place(): string {
  return join(folder, `${names++}`, 'survival', `${HEAD.id}.journal`)
}

const isJournalError = (error: unknown) => error instanceof BackupError && error.code === 'JOURNAL'

/** A journal with blocks of several kinds. @returns its file, and how long it was after each block. */
async function written(): Promise<{ file: string; ends: number[] }> {
  const file = place()
  const journal = await Journal.create(file, HEAD, await thisRun('lease'))
  const ends = [statSync(file).size]
  const flushed = async () => {
    await journal.flush()
    ends.push(statSync(file).size)
  }
  journal.begin(sample(64))
  journal.add(0, sample(28, 2))
  journal.begun({ key: 'survival/x', upload: '{"id":1}' })
  await flushed()
  journal.add(1, sample(28, 3))
  journal.add(2, sample(28, 4))
  await flushed()
  journal.stored(1, 8_000_000, 'abc')
  journal.add(3, sample(28, 5))
  await flushed()
  await journal.close()
  return { file, ends }
}

test('what was put down is what is read', async () => {
  const { file } = await written()
  const { head, run, header, seals, frames, upload, storedBytes } = await readJournal(file)
  assert.deepEqual(head, HEAD)
  assert.equal(run.lease, 'lease')
  assert.deepEqual(header, sample(64))
  assert.deepEqual(seals, Buffer.concat([2, 3, 4, 5].map((seed) => sample(28, seed))))
  assert.deepEqual([frames, storedBytes], [4, 8_000_000])
  assert.deepEqual(upload, { key: 'survival/x', upload: '{"id":1}' })
})

test('nobody else may read it', { skip: process.platform === 'win32' }, async () => {
  const { file } = await written()
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(statSync(join(file, '..')).mode & 0o777, 0o700)
})

test('one that is opened again goes on where its last whole block ends, wherever it was cut', async () => {
  const { file, ends } = await written()
  const whole = readFileSync(file)
  const first = ends[0] as number
  for (let length = 0; length <= whole.length; length += 1) {
    const cut = join(folder, `cut-${length}.journal`)
    writeFileSync(cut, whole.subarray(0, length))
    if (length < first) {
      await assert.rejects(readJournal(cut), isJournalError, `${length} bytes`)
      continue
    }
    const blocks = ends.filter((end) => end <= length).length
    const frames = [0, 1, 3, 4][blocks - 1] as number
    const { goodBytes, contents } = decodeJournal(readFileSync(cut))
    assert.deepEqual([goodBytes, contents.frames], [ends[blocks - 1], frames])
    if (length % 7 !== 0) continue
    const journal = await Journal.open(cut, await thisRun(null))
    if (blocks === 1) journal.begin(sample(64, 9))
    if (frames > 0) assert.deepEqual(journal.seal(frames - 1), sample(28, frames + 1))
    assert.equal(journal.seal(frames), undefined)
    journal.add(frames, sample(28, 99))
    await journal.close()
    const again = await readJournal(cut)
    assert.equal(again.frames, frames + 1)
    assert.deepEqual(again.seals.subarray(-28), sample(28, 99))
  }
})

test('a byte that was changed is refused, or the block that it is in counts as never written', async () => {
  const { file, ends } = await written()
  const whole = readFileSync(file)
  const beforeLast = ends.at(-2) as number
  for (let at = 0; at < whole.length; at += 1) {
    for (const bit of [1, 128]) {
      const changed = Buffer.from(whole)
      changed[at] = (changed[at] as number) ^ bit
      if (at < beforeLast) {
        assert.throws(() => decodeJournal(changed), isJournalError, `byte ${at}`)
      } else {
        const { contents, goodBytes } = decodeJournal(changed)
        assert.deepEqual([goodBytes, contents.frames], [beforeLast, 3], `byte ${at}`)
      }
    }
  }
})

test('blocks of another journal, and blocks out of order, are refused', async () => {
  const [one, other] = [await written(), await written()]
  const [bytes, foreign] = [readFileSync(one.file), readFileSync(other.file)]
  const [head, first, second] = one.ends as [number, number, number]
  const block = (of: Buffer, index: number) => of.subarray(one.ends[index - 1], one.ends[index])
  for (const [what, changed] of Object.entries({
    'a block of another': Buffer.concat([bytes.subarray(0, first), block(foreign, 2), bytes.subarray(second)]),
    'a block left out': Buffer.concat([bytes.subarray(0, first), bytes.subarray(second)]),
    'blocks swapped': Buffer.concat([bytes.subarray(0, head), block(bytes, 2), block(bytes, 1), block(bytes, 3)]),
    'the header of another': Buffer.concat([
      foreign.subarray(0, JOURNAL_HEADER_BYTES),
      bytes.subarray(JOURNAL_HEADER_BYTES),
    ]),
  })) {
    assert.throws(() => decodeJournal(changed), isJournalError, what)
  }
  // At the end nothing tells a foreign block from one that was torn: neither counts.
  const appended = Buffer.concat([bytes.subarray(0, first), block(foreign, 2)])
  assert.equal(decodeJournal(appended).contents.frames, 1)
})

test('what is put down while a block is being written goes with the next, and each flush has all that was before it', async () => {
  const file = place()
  const journal = await Journal.create(file, HEAD, await thisRun(null))
  journal.begin(sample(64))
  const flushes: Promise<void>[] = []
  for (let frame = 0; frame < 500; frame += 1) {
    journal.add(frame, sample(28, frame + 1))
    flushes.push(
      journal.flush().then(async () => {
        const { frames } = decodeJournal(readFileSync(file)).contents
        assert.ok(frames > frame, `frame ${frame} was said to be on the disk, and ${frames} are`)
      }),
    )
    if (frame % 7 === 0) await flushes.at(-1)
    if (frame % 5 === 0) await null
  }
  await Promise.all(flushes)
  await journal.close()
  const { frames, seals } = await readJournal(file)
  assert.equal(frames, 500)
  for (let frame = 0; frame < 500; frame += 1) {
    assert.deepEqual(seals.subarray(frame * 28, frame * 28 + 28), sample(28, frame + 1))
  }
})

test('one that cannot be written says so for ever, and nothing is taken for durable', {
  skip: process.platform !== 'linux',
}, async () => {
  const file = place()
  const journal = await Journal.create(file, HEAD, await thisRun(null))
  await journal.close()
  journal.begin(sample(64))
  await assert.rejects(journal.flush(), isJournalError)
  await assert.rejects(journal.flush(), isJournalError)
})

test('the process that writes is alive, one that was killed is dead, and another machine cannot be told', {
  skip: process.platform !== 'linux',
}, async () => {
  const ours = await thisRun(null)
  assert.equal(await ownerState(ours), 'alive')
  assert.equal(await ownerState({ ...ours, born: `${ours.boot}/1` }), 'dead', 'its number was given to another')
  assert.equal(await ownerState({ ...ours, host: 'elsewhere' }), 'unknown')
  assert.equal(await ownerState({ ...ours, space: 'pid:[1]' }), 'unknown', 'another container')
  const child = spawn('sleep', ['100'])
  await once(child, 'spawn')
  const theirs = { ...ours, pid: child.pid as number }
  child.kill('SIGKILL')
  await once(child, 'exit')
  assert.equal(await ownerState(theirs), 'dead')
  const rebooted = await ownerState({ ...ours, boot: 'another', born: 'another/1' })
  assert.equal(rebooted, ours.machine === null ? 'unknown' : 'dead')
})

test('a folder of journals is listed, with what cannot be used and why', async () => {
  const root = join(folder, 'listed')
  assert.deepEqual(await listJournals(root), [])
  const journal = await Journal.create(journalFile(root, HEAD.server, HEAD.id), HEAD, await thisRun(null))
  await journal.close()
  const other = journalFile(root, HEAD.server, '2026-11-28T02-00-00.000Z-abcd')
  writeFileSync(other, readFileSync(journal.file))
  writeFileSync(journalFile(root, HEAD.server, '2026-11-28T03-00-00.000Z-abcd'), 'nothing')
  const found = await listJournals(root)
  assert.deepEqual(
    found.map(({ problem, contents }) => [contents?.head.id, problem?.replace(/:.*/, '')]),
    [
      [HEAD.id, undefined],
      [undefined, `It is of survival ${HEAD.id}, and its name says another.`],
      [undefined, 'This is no journal that an upload could be taken up by'],
    ],
  )
  assert.deepEqual(await listJournals(root, 'creative'), [])
})
