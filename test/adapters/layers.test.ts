import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { withBandwidth, withObserver, withPrefix, withRetry } from '../../adapters/layers/index.ts'
import { openMemory } from '../../adapters/memory.ts'
import { KEY_MAX_BYTES, type Storage } from '../../adapters/storage.ts'
import { storageContract } from '../contract/storage.ts'

/** So much that the tests do not wait, and every byte is paid for all the same. */
const FAST = 4 * 1024 ** 3

const PREFIX = 'a prefix/of@two/'

const LAYERS: Record<string, (storage: Storage) => Storage> = {
  withPrefix: (storage) => withPrefix(storage, PREFIX),
  withRetry: (storage) => withRetry(storage),
  withBandwidth: (storage) => withBandwidth(storage, { readBytesPerSecond: FAST, writeBytesPerSecond: FAST }),
  withObserver: (storage) => withObserver(storage, () => {}),
  'all layers': (storage) =>
    Object.values(LAYERS)
      .slice(0, 4)
      .reduce((inner, wrap) => wrap(inner), storage),
}

for (const [name, wrap] of Object.entries(LAYERS)) {
  storageContract(`${name} over memory`, {
    open: async () => wrap(await openMemory()),
    partBytes: 256 * 1024,
    manyKeys: 300,
    keyMaxBytes: KEY_MAX_BYTES - (name === 'withPrefix' || name === 'all layers' ? PREFIX.length : 0),
  })
}

let root: string
storageContract('all layers over filesystem', {
  async open() {
    root = await mkdtemp(join(tmpdir(), 'millrace-layers-'))
    return LAYERS['all layers']!(await openFilesystem({ root }))
  },
  async pendingUploads() {
    const names = await readdir(root, { recursive: true })
    return names.filter((name) => name.includes('.millrace-tmp-')).length
  },
  cleanup: () => rm(root, { recursive: true }),
  partBytes: 256 * 1024,
  manyKeys: 40,
  keysAreFiles: true,
  keyMaxBytes: KEY_MAX_BYTES - PREFIX.length,
})
