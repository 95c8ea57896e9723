import assert from 'node:assert/strict'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ObjectNotes } from '../../lib/object-notes.ts'
import { defaultStateFolder } from '../../lib/state.ts'
import { scratch } from '../support/cli.ts'

const isNumber = (value: unknown): value is number => typeof value === 'number'
const open = (folder: string, location = 's3://bucket/x') => ObjectNotes.open(folder, 'seen', location, isNumber)
const mark = { key: 'survival/a', size: 5, version: 'v1' }

test('notes are found again for the same object in the same store, and for no other', async (t) => {
  const folder = join(await scratch(t), 'deep/state')
  const notes = await open(folder)
  notes.set(mark, 1)
  notes.set({ key: 'survival/b', size: 5 }, 2)
  notes.set({ key: 'creative/b', size: 5 }, 3)
  await notes.save()
  const again = await open(folder)
  assert.equal(again.get(mark), 1)
  assert.equal(again.get({ key: 'survival/b', size: 5, version: undefined }), 2)
  for (const other of [{ version: 'v2' }, { size: 6 }, { key: 'survival/c' }]) {
    assert.equal(again.get({ ...mark, ...other }), undefined)
  }
  assert.equal((await open(folder, 's3://other/x')).get(mark), undefined)
  again.keepOnly('survival/', [mark])
  assert.equal(again.size, 2)
  assert.equal(again.get({ key: 'creative/b', size: 5 }), 3)
  const [name] = await readdir(folder)
  assert.deepEqual(await readdir(folder), [name])
  assert.equal((await stat(join(folder, name as string))).mode & 0o777, 0o600)
})

test('a file of notes that is cut, changed or of another kind is no notes', async (t) => {
  const folder = await scratch(t)
  const notes = await open(folder)
  notes.set(mark, 1)
  await notes.save()
  const file = join(folder, (await readdir(folder))[0] as string)
  const text = await readFile(file, 'utf8')
  const bad = ['', text.slice(0, -5), text.replace('"v":1', '"v":2'), text.replace('bucket', 'other'), '[]', 'null']
  for (const one of [...bad, text.replace(',1]', ',"1"]'), text.replace(/"\[.*?\]"/, '"7"')]) {
    assert.notEqual(one, text)
    await writeFile(file, one)
    assert.equal((await open(folder)).size, 0, one)
  }
  await writeFile(file, text)
  assert.equal((await open(folder)).size, 1)
})

test('the state folder is where MILLRACE_STATE_DIR or XDG says', () => {
  assert.equal(defaultStateFolder({ MILLRACE_STATE_DIR: '/srv/own', XDG_STATE_HOME: '/srv/state' }), '/srv/own')
  assert.equal(defaultStateFolder({ XDG_STATE_HOME: '/srv/state' }), '/srv/state/millrace')
  assert.match(defaultStateFolder({}), /\/\.local\/state\/millrace$/)
})
