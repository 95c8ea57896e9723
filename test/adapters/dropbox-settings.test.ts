import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type DropboxConfig, openDropbox } from '../../adapters/dropbox.ts'
import { blockDigests, contentHash } from '../../adapters/dropbox-hash.ts'
import { DropboxPaths } from '../../adapters/dropbox-paths.ts'
import { ContentHasher } from '../fakes/dropbox-hash.ts'
import { seededBytes } from '../support/random.ts'

describe('Dropbox: settings, paths and hashes', () => {
  const good = { clientId: 'id', refreshToken: 'secret-refresh-token' }

  it('settings that cannot be meant so are INVALID, without a request, and tell no secret', async () => {
    const bad: DropboxConfig[] = [
      {},
      { clientId: 'id' },
      { refreshToken: 'secret-refresh-token' },
      { ...good, accessToken: 'secret-access-token' },
      { ...good, clientSecret: '' },
      { accessToken: 'secret-access-token\nX-Header: y' },
      { ...good, namespace: '1', rootNamespace: '2' },
      { ...good, namespace: 'team' },
      { ...good, session: 'parallel' as 'concurrent' },
      { ...good, endpoint: 'ftp://here' },
      { ...good, endpoint: 'http://user:secret-password@here' },
      { ...good, root: 'a//b' },
      { ...good, root: '/a/../b' },
      { ...good, root: 'ends with a space ' },
    ]
    for (const config of bad) {
      await assert.rejects(openDropbox(config), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'INVALID', JSON.stringify(config))
        assert.doesNotMatch(`${error.message} ${error.cause}`, /secret-(refresh|access|password)/)
        return true
      })
    }
  })

  it('opening makes no request, and the location tells no secret', async () => {
    for (const [root, location] of [
      [undefined, 'dropbox:///'],
      ['', 'dropbox:///'],
      ['/', 'dropbox:///'],
      ['backups/of mine/', 'dropbox:///backups/of%20mine/'],
    ]) {
      const config = { ...good, endpoint: 'http://127.0.0.1:9', ...(root === undefined ? {} : { root }) }
      const storage = await openDropbox(config)
      assert.equal(storage.location, location)
      assert.equal(storage.conditionalWrites, true)
      await storage.close()
    }
  })

  it('names that Dropbox would change or refuse are percent-encoded, and no others', () => {
    const paths = new DropboxPaths('/root')
    const cases = {
      'plain name/2026-11-22T10-00-00.000Z-k3f9.tar.zst.mlr': undefined,
      'grüße/世界/🌍': undefined,
      '100%': undefined,
      '50%a': undefined,
      'a%20b': 'a%2520b',
      'a\\b': 'a%5Cb',
      'ends ': 'ends%20',
      'folder /x': 'folder%20/x',
      'e\u0301': 'e%CC%81',
      '\u00e9': undefined,
      'Desktop.INI': '%44esktop.INI',
      '.DS_Store': '%2EDS_Store',
      '~$world': '%7E$world',
      '.~lock': '%2E~lock',
      '~a.tmp': '%7Ea.tmp',
      'a.tmp': undefined,
    }
    for (const [key, encoded = key] of Object.entries(cases)) {
      assert.equal(paths.pathOf(key, 'stat'), `/root/${encoded}`)
      assert.equal(paths.keyOf(`/root/${encoded}`), key)
      assert.equal(paths.keyOf(`/ROOT/${encoded}`), key)
    }
    const long = `${'\u0301e'.repeat(80)}`
    assert.throws(() => paths.pathOf(long, 'stat'), { code: 'INVALID' })
  })

  it('every key comes back from its path, and no two share one', () => {
    const paths = new DropboxPaths('/a/b')
    const character = fc.oneof(
      fc.constantFrom('%', '%', '2', '5', 'C', 'c', '\\', ' ', '.', '~', '$', '\u0301', 'e', '\u00e9', 'ẞ', '\ufffd'),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
    )
    const name = fc.string({ unit: character, minLength: 1, maxLength: 12 })
    const key = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'))
    const seen = new Map<string, string>()
    fc.assert(
      fc.property(key, (value) => {
        let path: string
        try {
          path = paths.pathOf(value, 'stat')
        } catch {
          return
        }
        assert.equal(paths.keyOf(path), value)
        assert.equal(path, path.normalize('NFC'))
        assert.doesNotMatch(path, / (\/|$)|\\/)
        assert.equal(seen.get(path) ?? value, value)
        seen.set(path, value)
        assert.ok(path.startsWith(`${paths.folderOf(value)}/`))
      }),
      { numRuns: 3000 },
    )
    assert.ok(seen.size > 1000)
  })

  it("the content hash is Dropbox's, whatever the parts", () => {
    // Of no bytes: the SHA-256 of nothing. Of one block: the SHA-256 of its SHA-256.
    assert.equal(contentHash([]), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
    const abc = contentHash([blockDigests(Buffer.from('abc'))])
    assert.equal(abc, '4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358')
    const bytes = seededBytes(9 * 1024 * 1024 + 5, 1)
    const expected = new ContentHasher(4 * 1024 * 1024).update(bytes).digest()
    assert.equal(contentHash([blockDigests(bytes)]), expected)
    const parts = [bytes.subarray(0, 8 * 1024 * 1024), bytes.subarray(8 * 1024 * 1024)]
    assert.equal(contentHash(parts.map((part) => blockDigests(part))), expected)
    const small = randomBytes(1000)
    for (const at of [0, 64, 640, 960]) {
      const pieces = [small.subarray(0, at), small.subarray(at)].map((piece) => blockDigests(piece, 64))
      assert.equal(contentHash(pieces), new ContentHasher(64).update(small).digest())
    }
  })
})
