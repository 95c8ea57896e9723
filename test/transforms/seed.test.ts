import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createCipheriv, createDecipheriv, pbkdf2Sync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import fsPromises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, mock, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { createEncrypt } from '../../transforms/encrypt.ts'
import { TransformError } from '../../transforms/errors.ts'
import { createSeedEncrypt, SEED_OVERHEAD_BYTES, SeedSealer } from '../../transforms/seed.ts'
import { createSeedDecrypt } from '../../transforms/seed-decrypt.ts'
import { feed, sample, through } from '../support/streams.ts'

const MIB = 1024 * 1024
const SIZES = [0, 1, 15, 16, 17, MIB, 5 * MIB]
const NO_PROC = process.platform === 'linux' ? false : 'there is no /proc to see open files in'
const password = 'correct horse'
const folder = mkdtempSync(join(tmpdir(), 'millrace-seed-'))
after(() => rmSync(folder, { recursive: true }))

function seedKey(password: string, salt: Buffer): Buffer {
  return pbkdf2Sync(password, salt, 100_000, 32, 'sha256')
}

function byHand(plain: Buffer, password: string): Buffer {
  const [salt, nonce] = [randomBytes(16), randomBytes(12)]
  const cipher = createCipheriv('aes-256-gcm', seedKey(password, salt), nonce)
  const sealed = [cipher.update(plain), cipher.final()]
  return Buffer.concat([salt, nonce, ...sealed, cipher.getAuthTag()])
}

function openByHand(object: Buffer, password: string): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', seedKey(password, object.subarray(0, 16)), object.subarray(16, 28))
  decipher.setAuthTag(object.subarray(-16))
  return Buffer.concat([decipher.update(object.subarray(28, -16)), decipher.final()])
}

function decrypt(passwords: string | string[] = password) {
  return createSeedDecrypt({ password: passwords, tempFolder: folder })
}

/** What the stream fails with, and how much came out before that. */
async function refusal(object: Buffer, stream = decrypt()): Promise<{ code: string | undefined; emitted: number }> {
  let emitted = 0
  stream.on('data', (chunk: Buffer) => {
    emitted += chunk.length
  })
  const failed = new Promise<Error | undefined>((resolve) => {
    stream.on('error', resolve)
    stream.on('end', () => resolve(undefined))
  })
  feed(object).pipe(stream)
  const error = await failed
  await closed(stream)
  if (error) assert.ok(error instanceof TransformError, String(error))
  return { code: error?.code, emitted }
}

/** The descriptors that are open in the temporary folder, where the system can say. */
function descriptors(): string[] {
  if (NO_PROC) return []
  return readdirSync('/proc/self/fd')
    .map((fd) => join('/proc/self/fd', fd))
    .filter((path) => {
      try {
        return readlinkSync(path).startsWith(folder)
      } catch {
        return false
      }
    })
}

function assertNothingLeft(when: string) {
  assert.deepEqual(readdirSync(folder), [], when)
  assert.deepEqual(descriptors(), [], when)
}

/** (`once` would reject: an error comes before `close`.) */
async function closed(stream: Duplex): Promise<void> {
  if (!stream.closed) await new Promise<void>((resolve) => stream.once('close', resolve))
}

const hasCode = (code: string) => (error: unknown) => error instanceof TransformError && error.code === code

test('seed: objects made by hand open, at every size and write size', async () => {
  for (const size of SIZES) {
    const plain = sample(size)
    const object = byHand(plain, password)
    assert.equal(object.length, size + SEED_OVERHEAD_BYTES)
    for (const writeBytes of [1, 7, 4096, undefined]) {
      if (size > MIB && writeBytes !== undefined && writeBytes < 4096) continue
      assert.deepEqual(await through(object, [decrypt()], writeBytes), plain, `${size} bytes by ${writeBytes}`)
    }
  }
  assertNothingLeft('after success')
})

test('seed: sizes around the blocks of the reader make the round trip', async () => {
  for (const size of [64 * 1024, 128 * 1024, 256 * 1024].flatMap((one) =>
    [-17, -16, -1, 0, 1, 15, 16, 17].map((by) => one + by),
  )) {
    const plain = sample(size)
    assert.deepEqual(await through(byHand(plain, password), [decrypt(['x', password])], 65_537), plain, `${size} bytes`)
  }
})

test('seed: what is written opens by hand, in exactly the layout, and no two objects share salt or nonce', async () => {
  for (const size of SIZES) {
    const plain = sample(size)
    for (const writeBytes of size > MIB ? [4096] : [7, undefined]) {
      const object = await through(plain, [createSeedEncrypt({ password })], writeBytes)
      assert.equal(object.length, size + SEED_OVERHEAD_BYTES)
      assert.deepEqual(openByHand(object, password), plain)
    }
  }
  const [one, two] = [await seal(sample(100)), await seal(sample(100))]
  assert.notDeepEqual(one.subarray(0, 16), two.subarray(0, 16))
  assert.notDeepEqual(one.subarray(16, 28), two.subarray(16, 28))
})

function seal(plain: Buffer): Promise<Buffer> {
  return through(plain, [createSeedEncrypt({ password })])
}

test('seed: the round trip through both streams', async () => {
  const plain = sample(3 * MIB + 5)
  assert.deepEqual(await through(plain, [createSeedEncrypt({ password }), decrypt()], 10_007), plain)
})

test('T1: seed: an object cut at any byte is rejected, and nothing comes out', async (t) => {
  const object = byHand(sample(20), password)
  for (let length = 0; length < object.length; length += 1) {
    const { code, emitted } = await refusal(object.subarray(0, length))
    assert.deepEqual({ code, emitted }, { code: length < 44 ? 'TRUNCATED' : 'AUTH_FAILED', emitted: 0 }, `at ${length}`)
  }
  assert.deepEqual(await refusal(Buffer.concat([object, Buffer.alloc(1)])), { code: 'AUTH_FAILED', emitted: 0 })
  t.diagnostic(`${object.length} cuts rejected`)
  assertNothingLeft('after cuts')
})

test('T34: seed: an object with any one byte flipped is rejected, and nothing comes out', async (t) => {
  const object = byHand(sample(33), password)
  for (let at = 0; at < object.length; at += 1) {
    const changed = Buffer.from(object)
    changed[at] = (changed[at] as number) ^ (1 << (at % 8))
    assert.deepEqual(await refusal(changed), { code: 'AUTH_FAILED', emitted: 0 }, `at ${at}`)
  }
  t.diagnostic(`${object.length} flips rejected`)
  assertNothingLeft('after flips')
})

test('seed: a large object that is damaged in its last byte emits nothing', async () => {
  const object = byHand(sample(5 * MIB), password)
  object[object.length - 1] = (object.at(-1) as number) ^ 1
  assert.deepEqual(await refusal(object), { code: 'AUTH_FAILED', emitted: 0 })
  assert.deepEqual(await refusal(object, decrypt(['a', password, 'b'])), { code: 'AUTH_FAILED', emitted: 0 })
  assertNothingLeft('after damage')
})

test('seed: several passwords are tried in order; none that fits is AUTH_FAILED with a message that says both', async () => {
  const plain = sample(MIB + 3)
  const object = byHand(plain, password)
  for (const passwords of [
    [password, 'x'],
    ['x', password],
    ['x', 'y', 'x', password],
  ]) {
    assert.deepEqual(await through(object, [decrypt(passwords)]), plain)
  }
  await assert.rejects(through(object, [decrypt(['x', 'y'])]), (error: TransformError) => {
    return error.code === 'AUTH_FAILED' && /wrong password/i.test(error.message) && /damaged/.test(error.message)
  })
  assert.deepEqual(await through(byHand(Buffer.alloc(0), password), [decrypt(['x', password])]), Buffer.alloc(0))
  assertNothingLeft('after several passwords')
})

test('seed: a password is written as typed, and read as typed, then in NFC', async () => {
  const [nfc, nfd] = ['pâte', 'pa\u0302te']
  const plain = sample(100)
  assert.deepEqual(openByHand(await through(plain, [createSeedEncrypt({ password: nfd })]), nfd), plain)
  assert.deepEqual(await through(byHand(plain, nfd), [decrypt(nfd)]), plain)
  assert.deepEqual(await through(byHand(plain, nfc), [decrypt(nfd)]), plain)
  assert.deepEqual(await through(byHand(plain, nfc), [decrypt(['x', nfd])]), plain)
  await assert.rejects(through(byHand(plain, nfd), [decrypt(nfc)]), hasCode('AUTH_FAILED'))
})

test('T26: seed: an empty password, a NUL or none are refused at once', () => {
  for (const bad of ['', 'a\0b', undefined as unknown as string]) {
    assert.throws(() => createSeedEncrypt({ password: bad }), hasCode('BAD_KEY'))
    assert.throws(() => createSeedDecrypt({ password: bad }), hasCode('BAD_KEY'))
  }
  assert.throws(() => createSeedDecrypt({ password: [] }), hasCode('BAD_KEY'))
  assert.throws(() => createSeedDecrypt({ password: ['x', ''] }), hasCode('BAD_KEY'))
})

test('seed: a millrace container is refused at its eighth byte, before a file is made', async () => {
  const container = await through(sample(5000), [createEncrypt({ password })])
  assert.deepEqual(await refusal(container), { code: 'UNSUPPORTED', emitted: 0 })
  await assert.rejects(through(container, [decrypt()], 1), hasCode('UNSUPPORTED'))
  const stream = decrypt()
  stream.write(container.subarray(0, 7))
  stream.write(container.subarray(7, 8))
  const [error] = await once(stream, 'error')
  assert.equal(error.code, 'UNSUPPORTED')
  assert.match(error.message, /createDecrypt/)
  assertNothingLeft('after a container')
})

test('seed: the writer stops exactly at the limit of one nonce', () => {
  const [key, nonce] = [Buffer.alloc(32, 1), Buffer.alloc(12, 2)]
  const sealer = new SeedSealer(key, nonce, 100)
  const first = sealer.update(Buffer.alloc(60))
  assert.throws(() => sealer.update(Buffer.alloc(41)), hasCode('LIMIT'))
  const second = sealer.update(Buffer.alloc(40))
  assert.throws(() => sealer.update(Buffer.alloc(1)), hasCode('LIMIT'))
  const decipher = createDecipheriv('aes-256-gcm', key, nonce).setAuthTag(sealer.final())
  const plain = Buffer.concat([decipher.update(Buffer.concat([first, second])), decipher.final()])
  assert.deepEqual(plain, Buffer.alloc(100))
})

test('seed: a chunk that has been encrypted or copied is handed back', async () => {
  let bytes = 0
  const onConsumed = (chunk: Buffer) => {
    bytes += chunk.length
    chunk.fill(0)
  }
  const plain = sample(MIB)
  for (const writeBytes of [5000, 200_000]) {
    bytes = 0
    const object = await through(Buffer.from(plain), [createSeedEncrypt({ password, onConsumed })], writeBytes)
    assert.equal(bytes, MIB)
    const stream = createSeedDecrypt({ password, tempFolder: folder, onConsumed })
    assert.deepEqual(await through(object, [stream], writeBytes), plain)
    assert.equal(bytes, MIB + MIB + SEED_OVERHEAD_BYTES)
  }
})

test('seed: the file has no name while it is in use and is readable for its owner only', {
  skip: NO_PROC,
}, async () => {
  const stream = decrypt()
  await new Promise((resolve) => stream.write(byHand(sample(2 * MIB), password), resolve))
  assert.deepEqual(readdirSync(folder), [])
  const open = descriptors()
  assert.equal(open.length, 1)
  assert.equal(statSync(open[0] as string).mode & 0o777, 0o600)
  stream.destroy()
  await closed(stream)
  assertNothingLeft('after destroy')
})

test('seed: a file that cannot be removed while it is open is removed when it is closed', async () => {
  const refuse = mock.method(fsPromises, 'unlink', async () => {
    throw new Error('busy')
  })
  syncBuiltinESMExports()
  const stream = decrypt()
  try {
    await new Promise((resolve) => stream.write(byHand(sample(MIB), password), resolve))
    assert.equal(readdirSync(folder).length, 1)
  } finally {
    refuse.mock.restore()
    syncBuiltinESMExports()
  }
  stream.destroy()
  await closed(stream)
  assertNothingLeft('after close')
})

test('seed: destroyed at any moment, it closes and leaves nothing', async () => {
  const object = byHand(sample(3 * MIB), password)
  const written = (stream: ReturnType<typeof decrypt>, bytes: number) =>
    new Promise<void>((resolve) => stream.write(object.subarray(0, bytes), () => resolve()))
  type Moment = (stream: ReturnType<typeof decrypt>) => unknown
  const moments: Record<string, Moment> = {
    'at once': () => {},
    'in the header': (stream) => written(stream, 10),
    'before the key is derived': (stream) => void stream.write(object),
    'while the key is derived': async (stream) => {
      stream.write(object)
      await turn()
    },
    'while the file is opened': async (stream) => {
      await written(stream, 100)
      stream.write(object)
      while (descriptors().length === 0 && !NO_PROC) await turn()
    },
    'between two writes': (stream) => written(stream, 2 * MIB),
    'right after the end': (stream) => void stream.end(object),
    'in the verification': async (stream) => {
      await written(stream, object.length)
      stream.end()
      await turn()
    },
    'when nobody reads': async (stream) => {
      stream.end(object)
      await once(stream, 'finish')
    },
    'while it is read': async (stream) => {
      stream.end(object)
      await once(stream, 'readable')
      assert.ok(stream.read(1000))
    },
  }
  for (const [name, moment] of Object.entries(moments)) {
    for (const error of [undefined, new Error('enough')]) {
      for (const passwords of [password, ['x', 'y', password]]) {
        const stream = decrypt(passwords)
        let failure: Error | undefined
        stream.on('error', (one) => {
          failure = one
        })
        await moment(stream)
        stream.destroy(error)
        await closed(stream)
        assert.equal(failure, error, name)
        assertNothingLeft(name)
      }
    }
  }
  // Derivations that were under way must not open anything any more.
  await new Promise((resolve) => setTimeout(resolve, 200))
  assertNothingLeft('a while later')
})

test('T4: seed: a source that fails half-way leaves nothing, and nothing comes out', async () => {
  const object = byHand(sample(2 * MIB), password)
  let emitted = 0
  await assert.rejects(
    pipeline(
      async function* () {
        for (let at = 0; at < 1.5 * MIB; at += 100_000) yield object.subarray(at, at + 100_000)
        throw new Error('the connection is gone')
      },
      decrypt(['x', password]),
      async (source) => {
        for await (const chunk of source) emitted += (chunk as Buffer).length
      },
    ),
    /the connection is gone/,
  )
  assert.equal(emitted, 0)
  assertNothingLeft('after a failed source')
})

test('seed: it does not run ahead of its reader', async () => {
  const plain = sample(5 * MIB)
  const stream = decrypt()
  const out: Buffer[] = []
  stream.end(byHand(plain, password))
  await once(stream, 'readable')
  for (let i = 0; i < 20; i += 1) await turn()
  assert.ok(stream.readableLength <= 128 * 1024, `${stream.readableLength} bytes wait`)
  for await (const chunk of stream) out.push(chunk)
  assert.deepEqual(Buffer.concat(out), plain)
})

test('T23: seed: a folder that is not there, and a full disk, are SPOOL with the cause', async () => {
  const stream = createSeedDecrypt({ password, tempFolder: join(folder, 'absent') })
  await assert.rejects(through(byHand(sample(100), password), [stream]), (error: TransformError) => {
    return error.code === 'SPOOL' && (error.cause as NodeJS.ErrnoException).code === 'ENOENT'
  })
  // A limit on the file's size is the full disk that a test can have without rights.
  const script = `
    const { createSeedDecrypt } = await import(${modulePath()})
    const stream = createSeedDecrypt({ password: 'x', tempFolder: ${JSON.stringify(folder)} })
    stream.on('error', (error) => console.log(error.name, error.code, error.cause.code))
    stream.on('close', () => console.log('closed'))
    stream.resume().end(Buffer.alloc(5 * 1024 * 1024))`
  const { stdout } = spawnSync(
    'bash',
    ['-c', `trap '' XFSZ; ulimit -f 1024; exec "$0" --input-type=module -e "$1"`, process.execPath, script],
    { encoding: 'utf8' },
  )
  assert.equal(stdout, 'TransformError SPOOL EFBIG\nclosed\n')
  assertNothingLeft('after a full disk')
})

function modulePath(): string {
  return JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../transforms/seed-decrypt.ts')).href)
}

test('seed: a file that changes or shrinks under the reader is SPOOL, not plaintext of another kind', {
  skip: NO_PROC,
}, async () => {
  const damage = {
    changed: (path: string) => {
      const fd = openSync(path, 'r+')
      writeSync(fd, Buffer.alloc(1000), 0, 1000, 4 * MIB)
      closeSync(fd)
    },
    cut: (path: string) => truncateSync(path, 3 * MIB),
  }
  for (const [what, spoil] of Object.entries(damage)) {
    const stream = decrypt()
    stream.end(byHand(sample(5 * MIB), password))
    await once(stream, 'readable')
    const [path] = descriptors()
    spoil(path as string)
    stream.resume()
    await assert.rejects(once(stream, 'end'), hasCode('SPOOL'), what)
    await closed(stream)
    assertNothingLeft(what)
  }
})

test('T8: seed: a process that is killed leaves no file', async () => {
  const script = `
    const { createSeedDecrypt } = await import(${modulePath()})
    const stream = createSeedDecrypt({ password: 'x', tempFolder: ${JSON.stringify(folder)} })
    stream.write(Buffer.alloc(4 * 1024 * 1024, 1), () => console.log('spooled'))
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await once(child.stdout, 'data')
  assert.equal(String(line), 'spooled\n')
  child.kill('SIGKILL')
  const [, signal] = await once(child, 'exit')
  assert.equal(signal, 'SIGKILL')
  assert.deepEqual(readdirSync(folder), [])
})
