import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { S3Client } from '@aws-sdk/client-s3'

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

/**
 * Has a command's text guarded by its MD5, in place of the checksum that the SDK demands of some commands: every store
 * knows that one, and Backblaze refuses requests with another.
 * https://www.backblaze.com/docs/cloud-storage-s3-compatible-api#unsupported-features
 */
export function byMd5(command: { middlewareStack: object }): void {
  // Each command's stack has a type of its own.
  const stack = command.middlewareStack as S3Client['middlewareStack']
  stack.add(
    (next) => (args) => {
      const { headers, body } = (args as { request: { headers: Record<string, string>; body: string } }).request
      for (const name of Object.keys(headers)) if (/^x-amz-(sdk-)?checksum-/.test(name)) delete headers[name]
      headers['content-md5'] = createHash('md5').update(body).digest('base64')
      return next(args)
    },
    { step: 'build', priority: 'low', name: 'millraceMd5' },
  )
}

/** The ETag of a part, where the store makes it an MD5. */
export function partEtag(body: Buffer): string {
  return createHash('md5').update(body).digest('hex')
}

/** An ETag without its quotes: some replies have them, some have not. */
export function bare(etag: string | undefined): string | undefined {
  return etag?.replace(/^"|"$/g, '')
}
