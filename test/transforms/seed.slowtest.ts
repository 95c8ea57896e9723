import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { TransformError } from '../../transforms/errors.ts'
import { SEED_MAX_PLAIN_BYTES, SeedSealer } from '../../transforms/seed.ts'

const MIB = 1024 * 1024
const url = (file: string) => JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../transforms', file)).href)

/** @returns the highest resident set of a process that seals and opens `bytes` bytes, in bytes. */
function peak(bytes: number, folder: string): number {
  const script = `
    import { readFileSync } from 'node:fs'
    import { Readable } from 'node:stream'
    import { pipeline } from 'node:stream/promises'
    const { createSeedEncrypt } = await import(${url('seed.ts')})
    const { createSeedDecrypt } = await import(${url('seed-decrypt.ts')})
    // As the service does: left to the collector, what the stages are done with is most of what there is to measure.
    const free = (chunk) => {
      if (chunk.byteLength === chunk.buffer.byteLength) chunk.buffer.transfer(0)
    }
    const chunk = Buffer.alloc(65536, 7)
    let left = ${bytes}
    let bytes = 0
    await pipeline(
      new Readable({
        read() {
          left -= chunk.length
          this.push(left >= 0 ? chunk : null)
        },
      }),
      createSeedEncrypt({ password: 'x' }),
      createSeedDecrypt({ password: 'x', tempFolder: ${JSON.stringify(folder)}, onConsumed: free }),
      async (source) => {
        for await (const chunk of source) {
          bytes += chunk.length
          free(chunk)
        }
      },
    )
    let peak = process.resourceUsage().maxRSS
    try {
      // maxRSS also counts what the parent had before the exec.
      peak = Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
    } catch {}
    console.log(JSON.stringify({ bytes, peak: peak * 1024 }))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.match(stdout, /peak/, stderr)
  const result = JSON.parse(stdout)
  assert.equal(result.bytes, bytes)
  return result.peak
}

test('seed: memory is as flat at 3 GiB as at 256 MiB', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-seed-'))
  try {
    const median = (bytes: number) => [1, 2, 3].map(() => peak(bytes, folder)).sort((a, b) => a - b)[1] as number
    const [small, large] = [median(256 * MIB), median(3072 * MIB)]
    t.diagnostic(`${Math.round(small / MIB)} MiB at 256 MiB, ${Math.round(large / MIB)} MiB at 3 GiB`)
    assert.ok(large <= Math.max(small * 1.1, small + 15 * MIB))
    assert.deepEqual(readdirSync(folder), [])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('seed: the longest object of the layout can be written, and not a byte more', () => {
  const sealer = new SeedSealer(Buffer.alloc(32, 1), Buffer.alloc(12, 2))
  const piece = Buffer.alloc(4 * MIB)
  for (let at = 0; at + piece.length <= SEED_MAX_PLAIN_BYTES; at += piece.length) sealer.update(piece)
  const rest = SEED_MAX_PLAIN_BYTES % piece.length
  const over = (error: unknown) => error instanceof TransformError && error.code === 'LIMIT'
  assert.throws(() => sealer.update(piece.subarray(0, rest + 1)), over)
  sealer.update(piece.subarray(0, rest))
  assert.throws(() => sealer.update(piece.subarray(0, 1)), over)
  assert.equal(sealer.final().length, 16)
})
