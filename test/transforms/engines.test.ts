import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { createZstdCompress, createZstdDecompress, TransformError } from '../../transforms/index.ts'
import { rounds } from '../support/rounds.ts'
import { sample, through } from '../support/streams.ts'
import { NO_ZSTD } from '../support/tools.ts'

const data = sample(rounds(1_300_000, 3_300_000))
const open = (packed: Buffer) => through(packed, [createZstdDecompress()])

test('both engines write what both readers read, at any level', { skip: NO_ZSTD }, async () => {
  for (const options of [
    { engine: 'native', level: 1 },
    { engine: 'native', level: 19, frameBytes: 1 << 20 },
    { engine: 'native', level: 22, frameBytes: 1 << 20 },
    { engine: 'simple-zstd', level: 1 },
    { engine: 'simple-zstd', level: 3, threads: 2, frameBytes: 1 << 20 },
    { engine: 'simple-zstd', level: 22 },
    { long: 27 },
    { engine: 'auto', long: 24, level: 19, threads: 2 },
  ] as const) {
    const packed = await through(data, [createZstdCompress(options)])
    assert.deepEqual(await open(packed), data, JSON.stringify(options))
    const byCommand = execFileSync('zstd', ['-dc', '--long=27'], { input: packed, maxBuffer: 1 << 28 })
    assert.deepEqual(byCommand, data, JSON.stringify(options))
  }
})

test('long-distance matching finds what is far away', { skip: NO_ZSTD }, async () => {
  const part = sample(9_000_000, 5)
  const twice = Buffer.concat([part, part])
  const short = await through(twice, [createZstdCompress()])
  const long = await through(twice, [createZstdCompress({ long: 27 })])
  assert.ok(long.length < short.length * 0.6, `${long.length} against ${short.length}`)
  assert.deepEqual(await open(long), twice)
})

test('an engine that cannot do what is asked for is refused at once', () => {
  const refused = (options: object, code: string) =>
    assert.throws(
      () => createZstdCompress(options),
      (error) => error instanceof TransformError && error.code === code,
    )
  refused({ engine: 'native', long: 27 }, 'BAD_OPTION')
  refused({ engine: 'lzma' }, 'BAD_OPTION')
  refused({ long: 28 }, 'BAD_OPTION')
})

test('without the zstd command the engine that needs it says so, and the other one works', () => {
  const script = `
    import { createZstdCompress } from './transforms/index.ts'
    createZstdCompress().destroy()
    try { createZstdCompress({ engine: 'simple-zstd' }) } catch (error) { console.log(error.code, error.message) }
  `
  const said = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    env: { PATH: '/nonexistent' },
    encoding: 'utf8',
  })
  assert.equal(said.status, 0, said.stderr)
  assert.match(said.stdout, /^UNSUPPORTED .*zstd command.*apt install zstd/)
})

test('destroying the stream ends its zstd processes', { skip: NO_ZSTD }, () => {
  const script = `
    import { readdirSync, readFileSync } from 'node:fs'
    import { createZstdCompress } from './transforms/index.ts'
    const children = () => readdirSync('/proc').filter((pid) => {
      try { return readFileSync('/proc/' + pid + '/stat', 'utf8').split(') ')[1].split(' ')[1] === String(process.pid) } catch { return false }
    }).length
    const stream = createZstdCompress({ engine: 'simple-zstd', level: 19, frameBytes: 1 << 24 })
    stream.on('error', () => {})
    stream.write(Buffer.alloc(1 << 24, 'abcdefgh'))
    while (children() === 0) await new Promise((resolve) => setTimeout(resolve, 10))
    stream.destroy(new Error('stop'))
    const end = Date.now() + 5000
    while (children() > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10))
    console.log('left', children())
  `
  const said = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 20_000 })
  assert.match(said.stdout, /left 0/, said.stderr)
})
