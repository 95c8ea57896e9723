import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type FakeFile, type Part, refusal } from './b2-store.ts'
import { rangeOf } from './http.ts'

const DIGITS = 40
const ZEROS = Buffer.alloc(64 * 1024)

/**
 * Takes the body of an upload, and holds it to its headers: https://www.backblaze.com/apidocs/b2-upload-file
 * @param keep whether the bytes are kept, or only counted and hashed.
 * @param onBytes told of how many have come; what it throws refuses the rest.
 */
export async function receive(
  request: IncomingMessage,
  keep: boolean,
  onBytes: (bytes: number) => void,
): Promise<Part> {
  const claimed = request.headers['x-bz-content-sha1']
  if (request.headers['content-length'] === undefined)
    throw refusal(400, 'bad_request', 'Missing header: Content-Length')
  if (typeof claimed !== 'string') throw refusal(400, 'bad_request', 'Missing header: X-Bz-Content-Sha1')
  const isAtEnd = claimed === 'hex_digits_at_end'
  const hash = createHash('sha1')
  const chunks: Buffer[] = []
  let tail = Buffer.alloc(0)
  let size = 0
  let bytes = 0
  const take = (chunk: Buffer) => {
    size += chunk.length
    hash.update(chunk)
    if (keep) chunks.push(chunk)
  }
  // A refusal on the way has to find the connection open.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length
    onBytes(bytes)
    if (!isAtEnd) {
      take(chunk)
      continue
    }
    const joined = Buffer.concat([tail, chunk])
    const border = Math.max(0, joined.length - DIGITS)
    take(joined.subarray(0, border))
    tail = joined.subarray(border)
  }
  const sha1 = hash.digest('hex')
  if (claimed !== 'do_not_verify' && (isAtEnd ? tail.toString() : claimed) !== sha1) {
    throw refusal(400, 'bad_request', 'Checksum did not match data received')
  }
  return { size, sha1, bytes: keep ? Buffer.concat(chunks) : undefined }
}

/** What the `X-Bz-Info-…` headers of an upload say: at most 10, names in lower case, values percent-encoded. */
export function infoOf(request: IncomingMessage): Record<string, string> {
  const info: Record<string, string> = {}
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith('x-bz-info-')) info[name.slice('x-bz-info-'.length)] = decode(String(value))
  }
  if (Object.keys(info).length > 10) throw refusal(400, 'bad_request', 'Too many X-Bz-Info headers')
  return info
}

/** https://www.backblaze.com/docs/cloud-storage-native-api-string-encoding @throws Refusal 400 */
export function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    throw refusal(400, 'bad_request', `Bad percent-encoding: ${text}`)
  }
}

function encode(text: string): string {
  return encodeURIComponent(text).replaceAll('%2F', '/')
}

/** Answers a download: https://www.backblaze.com/apidocs/b2-download-file-by-name */
export async function sendFile(request: IncomingMessage, reply: ServerResponse, file: FakeFile): Promise<void> {
  const range = rangeOf(request, file.size)
  if (range === 416) throw refusal(416, 'range_not_satisfiable', 'The Range header is outside the size of the file')
  const { start, end } = range ?? { start: 0, end: file.size - 1 }
  const headers: Record<string, string | number> = {
    'accept-ranges': 'bytes',
    'cache-control': 'max-age=0, no-cache, no-store',
    'content-length': end - start + 1,
    'content-type': file.contentType,
    'x-bz-content-sha1': file.sha1 ?? 'none',
    'x-bz-file-id': file.fileId,
    'x-bz-file-name': encode(file.name),
    'x-bz-upload-timestamp': file.timestamp,
  }
  if (range) headers['content-range'] = `bytes ${start}-${end}/${file.size}`
  for (const [name, value] of Object.entries(file.fileInfo)) headers[`x-bz-info-${name}`] = encode(value)
  reply.writeHead(range ? 206 : 200, headers)
  if (request.method === 'HEAD') {
    reply.end()
    return
  }
  await pipeline(Readable.from(slices(file, start, end), { objectMode: false }), reply).catch(() => {})
}

function* slices(file: FakeFile, start: number, end: number): Generator<Buffer> {
  let at = 0
  for (const [, { size, bytes }] of [...file.parts].sort(([a], [b]) => a - b)) {
    const from = Math.max(start - at, 0)
    const to = Math.min(end + 1 - at, size)
    for (let index = from; index < to; index += ZEROS.length) {
      const until = Math.min(to, index + ZEROS.length)
      yield bytes ? bytes.subarray(index, until) : ZEROS.subarray(0, until - index)
    }
    at += size
  }
}
