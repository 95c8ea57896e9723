import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { COMPRESSOR_VERSION } from '../../../transforms/zstd-codec.ts'
import type { PartsMoment } from '../../support/parts-store.ts'
import { PARTS_STORE_PART_BYTES } from '../../support/parts-store.ts'
import { ResumeRounds } from '../../support/resume-rounds.ts'

const AT_PART_12: PartsMoment = { step: 'putPart', nth: 12, when: 'after' }

test('journals in the world are no part of it, so that it goes on where it was', async (t) => {
  const rounds = new ResumeRounds(t, 'inside', true, 'world/region/a journals [1]')
  assert.equal(await rounds.run(AT_PART_12), null)
  const done = await rounds.run()
  assert.ok((done?.takenUp?.heldBytes ?? 0) >= 10 * PARTS_STORE_PART_BYTES, JSON.stringify(done))
  rmSync(rounds.journals, { recursive: true })
  await rounds.assertWhole(done?.id as string, ['mtime'])
})

test('where the world has changed a new object is begun, the old upload is cancelled, and nothing of the frame left', async (t) => {
  const rounds = new ResumeRounds(t, 'changed')
  // The sizes are the same: what comes after the change is sealed by the same frames.
  rounds.writeFile('region/r.0.0.mca', 1_500_000, 'one')
  assert.equal(await rounds.run(AT_PART_12), null)
  rounds.writeFile('region/r.0.0.mca', 1_500_000, 'another')
  const done = await rounds.run()
  assert.ok(done && !done.error, JSON.stringify(done))
  assert.equal(done.takenUp, null)
  assert.match(done.warnings.join(), /is not taken up\. The bytes are not those.*differ in frame \d+/)
  await rounds.assertWhole(done.id)
})

test('an upload that was begun and whose name was not taken down is cancelled by whoever comes next, also where it does not take up', async (t) => {
  const rounds = new ResumeRounds(t, 'not taken down')
  assert.equal(await rounds.run({ step: 'begin', nth: 0, when: 'after' }), null)
  assert.equal(rounds.uploads(), 1)
  const done = await rounds.run(undefined, false)
  await rounds.assertWhole(done?.id as string)
})

test('an upload that was begun in the place of one that is gone is cancelled when the world turns out to have changed', async (t) => {
  const rounds = new ResumeRounds(t, 'gone and changed')
  rounds.writeFile('region/r.1.0.mca', 1_000_000, 'one')
  assert.equal(await rounds.run(AT_PART_12), null)
  rounds.dropUploads()
  rounds.writeFile('region/r.1.0.mca', 1_000_000, 'another')
  const done = await rounds.run()
  assert.match(done?.warnings.join() ?? '', /differ in frame \d+/)
  await rounds.assertWhole(done?.id as string)
})

test('--resume=strict stops where it differs and leaves the upload, which goes on when the world is as it was', async (t) => {
  const rounds = new ResumeRounds(t, 'strict')
  rounds.writeFile('region/r.1.0.mca', 1_000_000, 'one')
  assert.equal(await rounds.run(AT_PART_12), null)
  rounds.writeFile('region/r.1.0.mca', 1_000_000, 'another')
  const refused = await rounds.run(undefined, 'strict')
  assert.equal(refused?.error?.code, 'DIFFERS')
  assert.match(refused?.error?.message ?? '', /differ in frame \d+ \(compressed bytes \d+ to \d+\)/)
  assert.equal(rounds.uploads(), 1)
  rounds.writeFile('region/r.1.0.mca', 1_000_000, 'one')
  const done = await rounds.run(undefined, 'strict')
  assert.ok((done?.takenUp?.heldBytes ?? 0) >= 10 * PARTS_STORE_PART_BYTES, JSON.stringify(done))
  await rounds.assertWhole(done?.id as string)
})

const COMPLETE_NOW = /had been stored by a run that then died\. It is complete now/

test('an object that was committed by a run that died before its companion is made complete, and nothing is sent', async (t) => {
  const rounds = new ResumeRounds(t, 'companion')
  assert.equal(await rounds.run({ step: 'companion', nth: 0, when: 'before' }), null)
  const done = await rounds.run()
  assert.match(done?.warnings.join() ?? '', COMPLETE_NOW)
  assert.equal(done?.takenUp?.sentBytes, 0)
  await rounds.assertWhole(done?.id as string)
  assert.equal((await rounds.snapshots()).length, 1)
})

test('where the world has changed since, it is made complete, and a further one is made', async (t) => {
  const rounds = new ResumeRounds(t, 'companion, changed')
  assert.equal(await rounds.run({ step: 'companion', nth: 0, when: 'before' }), null)
  rounds.writeFile('region/r.0.0.mca', 1_200_000, 'changed')
  const done = await rounds.run()
  assert.match(done?.warnings.join() ?? '', COMPLETE_NOW)
  assert.equal(done?.takenUp, null)
  await rounds.assertWhole(done?.id as string)
  const snapshots = await rounds.snapshots()
  assert.deepEqual([snapshots.length, snapshots.every(({ complete }) => complete)], [2, true])
})

test('without encryption nothing is compared: it is made complete, and a further one is made', async (t) => {
  const rounds = new ResumeRounds(t, 'companion, plain', false)
  assert.equal(await rounds.run({ step: 'companion', nth: 0, when: 'before' }), null)
  const done = await rounds.run()
  assert.match(done?.warnings.join() ?? '', COMPLETE_NOW)
  assert.equal(done?.takenUp, null)
  await rounds.assertWhole(done?.id as string)
  assert.equal((await rounds.snapshots()).length, 2)
})

test('a run that was killed when the store had made the object, and it had not been told, is gone on with, and nothing is sent', async (t) => {
  const rounds = new ResumeRounds(t, 'committed')
  assert.equal(await rounds.run({ step: 'commit', nth: 0, when: 'after' }), null)
  const done = await rounds.run()
  assert.equal(done?.takenUp?.sentBytes, 0)
  await rounds.assertWhole(done?.id as string)
  assert.equal((await rounds.snapshots()).length, 1)
})

test('a run that does not take up leaves the upload until its own snapshot is there', async (t) => {
  const rounds = new ResumeRounds(t, 'without')
  assert.equal(await rounds.run(AT_PART_12), null)
  const done = await rounds.run(undefined, false)
  assert.equal(done?.takenUp, null)
  await rounds.assertWhole(done?.id as string)
})

test('a snapshot that is not encrypted is taken up by the sums of its parts alone', async (t) => {
  const rounds = new ResumeRounds(t, 'plain', false)
  assert.equal(await rounds.run(AT_PART_12), null)
  const done = await rounds.run()
  assert.ok((done?.takenUp?.heldBytes ?? 0) >= 10 * PARTS_STORE_PART_BYTES, JSON.stringify(done))
  await rounds.assertWhole(done?.id as string)
})

function journalOf({ journals }: ResumeRounds): string {
  const name = readdirSync(join(journals, 'survival')).find((one) => one.endsWith('.journal'))
  return join(journals, 'survival', name as string)
}

test('a journal that is older than the truth, or was cut, leads to fresh nonces: what it lacks is sealed and sent anew', async (t) => {
  for (const [what, change] of Object.entries({
    'an older copy': (rounds: ResumeRounds, older: string) => {
      rmSync(rounds.journals, { recursive: true })
      cpSync(older, rounds.journals, { recursive: true })
    },
    'cut in the middle': (rounds: ResumeRounds) => {
      const file = journalOf(rounds)
      truncateSync(file, Math.floor(readFileSync(file).length * 0.7))
    },
  })) {
    await t.test(what, async (inner) => {
      const rounds = new ResumeRounds(inner, 'older')
      assert.equal(await rounds.run({ step: 'putPart', nth: 3, when: 'after' }), null)
      const older = `${rounds.journals}-older`
      cpSync(rounds.journals, older, { recursive: true })
      assert.equal(await rounds.run({ step: 'putPart', nth: 8, when: 'after' }), null)
      change(rounds, older)
      rounds.dropLease()
      const done = await rounds.run()
      assert.ok(done && !done.error, JSON.stringify(done))
      assert.ok(done.takenUp, 'the upload was not taken up')
      // What had been sent of the frames that the journal lacks is there under other nonces, and is replaced.
      assert.ok(done.takenUp.sentBytes > 0)
      await rounds.assertWhole(done.id)
    })
  }
})

test('a journal that is damaged is not used, and a new object is begun', async (t) => {
  const rounds = new ResumeRounds(t, 'damaged')
  assert.equal(await rounds.run(AT_PART_12), null)
  const file = journalOf(rounds)
  const bytes = readFileSync(file)
  const at = Math.floor(bytes.length / 3)
  bytes[at] = (bytes[at] as number) ^ 4
  writeFileSync(file, bytes)
  const refused = await rounds.run(undefined, 'strict')
  assert.equal(refused?.error?.code, 'DIFFERS')
  const done = await rounds.run()
  assert.match(done?.warnings.join() ?? '', /is damaged, and others follow it/)
  assert.equal(done?.takenUp, null)
  await rounds.assertWhole(done?.id as string)
})

/** Where the first block begins, and its payload. */
const [BLOCK_AT, PAYLOAD_AT] = [24, 36]

test('frames that an earlier release would have compressed otherwise are not gone on with', async (t) => {
  const rounds = new ResumeRounds(t, 'another compressor')
  assert.equal(await rounds.run(AT_PART_12), null)
  const file = journalOf(rounds)
  const bytes = readFileSync(file)
  const payload = bytes.subarray(PAYLOAD_AT, PAYLOAD_AT + bytes.readUInt32BE(BLOCK_AT))
  const ours = `(frames ${COMPRESSOR_VERSION})`
  const at = payload.indexOf(ours)
  assert.ok(at > 0)
  payload.write(ours.replace(/\d/, '0'), at)
  bytes.writeUInt32BE(crc32(payload, crc32(bytes.subarray(BLOCK_AT, BLOCK_AT + 8), crc32(bytes.subarray(8, 24)))), 32)
  writeFileSync(file, bytes)
  const done = await rounds.run()
  assert.ok(done && !done.error, JSON.stringify(done))
  assert.match(done.warnings.join(), /It was begun with zstd \S+ \(frames 0\), and this is \S+ \(frames \d+\)\./)
  assert.equal(done.takenUp, null)
  await rounds.assertWhole(done.id)
})
