import { openDropbox } from '../../adapters/dropbox.ts'
import { storageContract } from '../contract/storage.ts'
import { FakeDropbox } from '../fakes/dropbox.ts'
import { ContentHasher } from '../fakes/dropbox-hash.ts'

const PART_BYTES = 4 * 1024 * 1024

for (const session of ['concurrent', 'sequential'] as const) {
  let fake: FakeDropbox

  storageContract(`dropbox, ${session} sessions`, {
    async open() {
      fake = await FakeDropbox.open()
      return openDropbox({ ...fake.credentials, root: '/some/Where', session, partBytes: PART_BYTES, pageSize: 10 })
    },
    cleanup: () => fake.close(),
    // Not of sessions: Dropbox has no way to cancel one. What is never finished is no file, is seen nowhere, is not
    // billed, and is gone after seven days.
    partBytes: PART_BYTES,
    keysAreFiles: true,
    foldsCase: true,
    maxObjectBytes: 2 ** 41 - 2 ** 22,
    digests: { 'dropbox-content-hash': (bytes) => new ContentHasher(PART_BYTES).update(bytes).digest() },
  })
}
