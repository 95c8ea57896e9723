import { createHash } from 'node:crypto'

/** Dropbox hashes in blocks of this size; the appends of a concurrent session are multiples of it too. */
export const BLOCK_BYTES = 4 * 1024 * 1024
const DIGEST_BYTES = 32

/**
 * The SHA-256 digests, one behind another, of each block of a body that begins at a block's border. Those of an
 * object's parts, joined, are those of the object.
 */
export function blockDigests(body: Buffer, blockBytes: number = BLOCK_BYTES): Buffer {
  const digests = Buffer.allocUnsafe(Math.ceil(body.length / blockBytes) * DIGEST_BYTES)
  for (let block = 0, at = 0; at < body.length; block++, at += blockBytes) {
    createHash('sha256')
      .update(body.subarray(at, at + blockBytes))
      .digest()
      .copy(digests, block * DIGEST_BYTES)
  }
  return digests
}

/**
 * Dropbox's `content_hash`: the SHA-256 of the digests of all blocks.
 * https://www.dropbox.com/developers/reference/content-hash
 * @returns hex in lower case.
 */
export function contentHash(digests: readonly Buffer[]): string {
  const hash = createHash('sha256')
  for (const some of digests) hash.update(some)
  return hash.digest('hex')
}
