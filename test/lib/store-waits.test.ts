import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { StorageError } from '../../adapters/errors.ts'
import { openMemory } from '../../adapters/memory.ts'
import { retry } from '../../adapters/retry.ts'
import { tellStoreWaits } from '../../lib/cli/store-waits.ts'
import { GuardedSink } from '../../lib/guarded-sink.ts'
import { FakeB2 } from '../fakes/b2.ts'
import { millrace } from '../support/cli.ts'
import { openFaultProxy } from '../support/fault-proxy.ts'
import { fakeClock } from '../support/scripted-store.ts'

const POLICY = { attempts: 3, baseMs: 1, capMs: 1, deadlineMs: 1 }

/** A call that is asked for a rest, and then answered. */
function restedCall(ms: number, adapter: string): Promise<void> {
  let calls = 0
  const call = async () => {
    if (calls++ > 0) return
    throw new StorageError('Later.', { code: 'RATE_LIMITED', adapter, operation: 'putPart', retryAfterMs: ms })
  }
  return retry(call, POLICY, { clock: fakeClock() })
}

test('a long wait that a store asks for is told once, though several requests are asked, until that is ended', async () => {
  const told: string[] = []
  const end = tellStoreWaits((message) => told.push(message))
  await restedCall(1000, 'dropbox')
  assert.deepEqual(told, [], 'a second is not worth a word')
  await Promise.all([restedCall(300_000, 'dropbox'), restedCall(300_000, 'dropbox'), restedCall(60_000, 's3')])
  assert.equal(told.length, 2)
  assert.match(told[0] ?? '', /^dropbox asks for a rest of 5m 0s \(uploading a part of it\)\. It goes on after that\.$/)
  assert.match(told[1] ?? '', /^s3 asks for a rest of 1m 0s/)
  end()
  await restedCall(300_000, 'backblaze-b2')
  assert.equal(told.length, 2)
})

test('a store that asks for a rest is not given up while it lasts, and is when it goes on to take nothing', async (t) => {
  const storage = await openMemory()
  const open = () => Object.assign(storage.createWriteStream('object'), { _write: () => {} })
  const hanging = (adapter: string) => {
    const options = { location: `${adapter}:`, adapter, onConsumed: () => {}, stallMs: 50, beforeCommit: undefined }
    const sink = new GuardedSink(open, options)
    t.after(() => sink.destroy())
    const failed = once(sink, 'error').then(([error]) => (error as Error).message)
    sink.write(Buffer.from('bytes'))
    return { sink, failed }
  }
  const [resting, rested, other] = [hanging('resting'), hanging('rested'), hanging('other')]
  await Promise.all([restedCall(300_000, 'resting'), restedCall(100, 'rested')])
  resting.failed.catch(() => {})
  assert.match(await other.failed, /^other: took nothing for/)
  assert.match(await rested.failed, /^rested: took nothing for/)
  assert.equal(resting.sink.errored, null)
})

test('the command says that a store asks it to wait, and goes on', async (t) => {
  const fake = await new FakeB2().start()
  t.after(() => fake.close())
  const { bucketName } = fake.store.addBucket('worlds')
  const { keyId, applicationKey } = fake.store.addKey()
  const proxy = await openFaultProxy(fake.origin)
  t.after(() => proxy.close())
  const isSignIn = ({ url }: { url: string }) => url.includes('authorize_account')
  const body = JSON.stringify({ status: 503, code: 'service_unavailable', message: 'later' })
  proxy.inject({ kind: 'answer', status: 503, headers: { 'retry-after': '5' }, body }, isSignIn)
  const store = `b2://${bucketName}/mc?endpoint=${proxy.endpoint}`
  const env = { B2_APPLICATION_KEY_ID: keyId, B2_APPLICATION_KEY: applicationKey }
  const { code, stderr } = await millrace(['list', '--from', store, '--server', 'world'], { env })
  assert.equal(code, 0, stderr)
  assert.match(stderr, /^Note: backblaze-b2 asks for a rest of 5\.0 s \(.+\)\. It goes on after that\.$/m)
})
