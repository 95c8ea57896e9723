import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { describe, it } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { StorageError } from '../../adapters/errors.ts'
import { openStorage, parseStorageUrl } from '../../adapters/open.ts'
import { openS3 } from '../../adapters/s3.ts'

const SECRET = 'hunter2hunter2'

function isInvalid(error: unknown): true {
  assert.ok(error instanceof StorageError && error.code === 'INVALID', String(error))
  assert.ok(!JSON.stringify([error.message, String(error.cause)]).includes(SECRET), 'the message holds the secret')
  return true
}

describe('openStorage', () => {
  it('opens each provider by its settings, and none that it does not know', async () => {
    assert.equal((await openStorage({ provider: 'memory' })).adapter, 'memory')
    assert.equal((await openStorage({ provider: 'filesystem', root: tmpdir() })).location, pathToFileURL(tmpdir()).href)
    const s3 = await openStorage({ provider: 's3', bucket: 'b', endpoint: 'http://127.0.0.1:9', prefix: '/x/' })
    assert.equal(s3.location, 's3://b/x/?endpoint=http%3A%2F%2F127.0.0.1%3A9')
    await s3.close()
    await assert.rejects(openStorage({ provider: 'tape' } as never), isInvalid)
    await assert.rejects(openStorage({ provider: 'filesystem', root: '' }), isInvalid)
  })

  it('reads URLs', () => {
    assert.deepEqual(parseStorageUrl('file:///srv/my%20backups'), { provider: 'filesystem', root: '/srv/my backups' })
    assert.deepEqual(parseStorageUrl('file:///srv/%231'), { provider: 'filesystem', root: '/srv/#1' })
    assert.deepEqual(parseStorageUrl('file:///mnt/usb/mc?mountPoint=/mnt/usb'), {
      provider: 'filesystem',
      root: '/mnt/usb/mc',
      mountPoint: '/mnt/usb',
    })
    assert.deepEqual(parseStorageUrl('s3://bucket'), { provider: 's3', bucket: 'bucket', prefix: '' })
    const locked = parseStorageUrl('s3://bucket/?objectLock=COMPLIANCE:30') as { objectLock?: object }
    assert.deepEqual(locked.objectLock, { mode: 'COMPLIANCE', days: 30 })
    assert.deepEqual(
      parseStorageUrl('s3://my.Bucket/a/b%20c?endpoint=https://s3.example:9000&region=eu-1&forcePathStyle=false'),
      {
        provider: 's3',
        bucket: 'my.Bucket',
        prefix: '/a/b c',
        endpoint: 'https://s3.example:9000',
        region: 'eu-1',
        forcePathStyle: false,
      },
    )
  })

  it('refuses URLs that it cannot mean, and repeats no secret', async () => {
    for (const url of [
      'nothing',
      '/srv/backups',
      'ftp://host/path',
      'file://host/path',
      'file:///a?b=c',
      'file:///mnt/backups#1',
      'file:///mnt/#backups',
      'file:///mnt/backups#',
      's3://bucket/worlds#1',
      's3:///prefix',
      `s3://key:${SECRET}@bucket/prefix`,
      `s3://bucket/?secretAccessKey=${SECRET}`,
      `s3://bucket/?endpoint=https://key:${SECRET}@host`,
      's3://bucket/?endpoint=ftp://host',
      's3://bucket/?forcePathStyle=perhaps',
      's3://bucket/?objectLock=30',
      's3://bucket/%ff',
      's3://bucket/a/../../b//c',
    ]) {
      await assert.rejects(openStorage(url), isInvalid, url)
    }
    await assert.rejects(openStorage('ftp://host/path'), /file:\/\/, s3:\/\//)
    await assert.rejects(openStorage('./backups'), /file:\/\/\/srv\/backups/)
  })

  it('refuses what it would leave out of a URL: a port, one of two values, an empty one', () => {
    for (const [url, message] of [
      ['s3://localhost:9000/worlds?region=x', /has no port.*endpoint=/],
      ['s3://b/p?region=x&objectLock=COMPLIANCE:30&objectLock=GOVERNANCE:1', /has objectLock twice/],
      ['s3://b/p?region=x&storageClass=', /has storageClass without a value/],
      ['s3://b/p?region=', /has region without a value/],
      ['file:///mnt/usb/b?mountPoint=/mnt/usb&mountPoint=/', /has mountPoint twice/],
      ['file:///mnt/usb/b?mountPoint=', /has mountPoint without a value/],
    ] as const) {
      assert.throws(() => parseStorageUrl(url), { name: 'StorageError', code: 'INVALID', message })
    }
  })

  it('refuses S3 settings that contradict each other, and repeats no secret', async () => {
    const bucket = 'b'
    for (const config of [
      { bucket: '' },
      { bucket, secretAccessKey: SECRET },
      { bucket, accessKeyId: 'id' },
      { bucket, sessionToken: SECRET },
      { bucket, endpoint: `https://key:${SECRET}@host` },
      { bucket, prefix: 'a//b' },
    ]) {
      await assert.rejects(openS3(config), isInvalid)
    }
  })

  it('importing the adapters loads no SDK', async () => {
    const script = `
      await import(${JSON.stringify(new URL('../../adapters/index.ts', import.meta.url).href)})
      const { createRequire } = await import('node:module')
      const loaded = Object.keys(createRequire(import.meta.url).cache).filter((path) => path.includes('@aws-sdk'))
      console.log(loaded.length)`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    assert.equal(stdout.trim(), '0')
  })
})
