import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BackupError } from '../../lib/errors.ts'
import {
  checkServer,
  companionText,
  idTime,
  newId,
  objectBase,
  parseCompanion,
  parseObjectBase,
} from '../../lib/names.ts'

test('an id says its time, and only a real time is an id', () => {
  const now = new Date('2026-11-22T10:00:00.123Z')
  const id = newId(now)
  assert.match(id, /^2026-11-22T10-00-00\.123Z-[a-z0-9]{4}$/)
  assert.equal(idTime(id)?.getTime(), now.getTime())
  for (const bad of [
    '2026-13-01T00-00-00.000Z-aaaa',
    '2026-02-30T00-00-00.000Z-aaaa',
    `${id}x`,
    id.slice(1),
    'latest',
    '',
  ]) {
    assert.equal(idTime(bad), null, bad)
  }
})

test('object names make the round trip, and others are foreign', () => {
  const id = newId(new Date())
  for (const kind of ['tar', 'raw'] as const) {
    for (const encrypted of [true, false]) {
      assert.deepEqual(parseObjectBase(objectBase({ id, kind, encrypted })), { id, kind, encrypted })
    }
  }
  for (const base of [id, `${id}.tar`, `x${id}.zst`, 'notes.zst', `${id}.pin`, `${id}.tar.zst.mlr.sha256`]) {
    assert.equal(parseObjectBase(base), null, base)
  }
})

test('T19: a server name cannot leave its place or swallow another', () => {
  for (const good of ['a', '1', 'world', 'world2', 'a.b_c-d', 'a'.repeat(100)]) assert.equal(checkServer(good), good)
  for (const bad of ['', '.', '..', '../x', 'a/b', 'A', '-a', '.lease', 'a b', 'a\n', 'ü', 'a'.repeat(101)]) {
    assert.throws(
      () => checkServer(bad),
      (error) => error instanceof BackupError && error.code === 'USAGE',
      bad,
    )
  }
})

test('companions: ours, the bare one of the original service, and nothing else', () => {
  const digest = 'ab'.repeat(32)
  assert.equal(parseCompanion(companionText(digest, 'x.zst'), 'x.zst'), digest)
  assert.equal(parseCompanion(digest, 'x.zst'), digest)
  assert.equal(parseCompanion(`${digest} *x.zst\n`, 'x.zst'), digest)
  for (const bad of [
    '',
    digest.slice(1),
    digest.toUpperCase(),
    companionText(digest, 'y.zst'),
    `${digest}\n${digest}\n`,
  ]) {
    assert.equal(parseCompanion(bad, 'x.zst'), null)
  }
})
