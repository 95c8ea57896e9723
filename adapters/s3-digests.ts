import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

/** Of a body that is sent: those that the connection's integrity asks for. */
export interface Digest {
  md5?: Buffer
  crc32?: Buffer
}

/** S3's digest of an object in parts: the digest of the parts' digests, and their number. */
export function composite(digests: Digest[]): { etag?: string; crc32?: string } {
  const count = digests.length
  const all = (name: keyof Digest) => Buffer.concat(digests.map((digest) => digest[name] ?? Buffer.alloc(0)))
  const md5s = all('md5')
  if (md5s.length > 0) return { etag: `${createHash('md5').update(md5s).digest('hex')}-${count}` }
  const sums = all('crc32')
  if (sums.length === 0) return {}
  const sum = Buffer.alloc(4)
  sum.writeUInt32BE(crc32(sums))
  return { crc32: `${sum.toString('base64')}-${count}` }
}

/** The headers that a body's digests go in. */
export function digestFields({ md5, crc32: sum }: Digest): { ContentMD5?: string; ChecksumCRC32?: string } {
  return {
    ...(md5 ? { ContentMD5: md5.toString('base64') } : {}),
    ...(sum ? { ChecksumCRC32: sum.toString('base64') } : {}),
  }
}

/** The ETag of a part, where the store makes it an MD5. */
export function partEtag(body: Buffer): string {
  return createHash('md5').update(body).digest('hex')
}

/** An ETag without its quotes: some replies have them, some have not. */
export function bare(etag: string | undefined): string | undefined {
  return etag?.replace(/^"|"$/g, '')
}
