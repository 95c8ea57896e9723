import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

const SDKS = /node_modules\/(@aws-sdk|@smithy|googleapis|dropbox|backblaze-b2|simple-zstd)\//

/** Every module that a program of one line loads. */
function loadedBy(program: string): string[] {
  const script = `
    import { registerHooks } from 'node:module'
    const urls = []
    registerHooks({ resolve(specifier, context, next) {
      const found = next(specifier, context)
      urls.push(found.url)
      return found
    } })
    ${program}
    console.log(JSON.stringify(urls))
  `
  const root = join(import.meta.dirname, '../..')
  return JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: root }).toString())
}

test('importing millrace, its transforms or its adapters loads no provider SDK', () => {
  for (const module of ['./lib/index.ts', './transforms/index.ts', './adapters/index.ts', './lib/cli/main.ts']) {
    const urls = loadedBy(`await import('${module}')`)
    assert.ok(urls.length > 3, module)
    assert.deepEqual(
      urls.filter((url) => SDKS.test(url)),
      [],
      module,
    )
  }
})

test('the command loads what a config, a schedule or a question needs when there is one', () => {
  // 17 MiB and 0.1 s, which each run of a backup would pay.
  const urls = loadedBy(`await import('./lib/cli/main.ts')`)
  assert.deepEqual(
    urls.filter((url) => /node_modules\/(zod|yaml|croner|@clack)\//.test(url)),
    [],
  )
})

test('the command loads what a server, a restore or a terminal needs when there is one', () => {
  // A fifth of the time that a command takes to begin.
  const urls = loadedBy(`await import('./lib/cli/main.ts')`)
  assert.deepEqual(
    urls.filter((url) => /^node:https?$|node_modules\/(tar-stream|cli-progress)\//.test(url)),
    [],
  )
})

test('opening an S3 store is what loads its SDK', () => {
  const urls = loadedBy(`
    const { openStorage } = await import('./adapters/index.ts')
    await (await openStorage('s3://bucket/x?endpoint=http://127.0.0.1:9')).close()`)
  assert.ok(urls.some((url) => url.includes('@aws-sdk/client-s3')))
})
