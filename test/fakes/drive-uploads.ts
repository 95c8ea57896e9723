import { createHash } from 'node:crypto'
import type * as http from 'node:http'
import { selectFields } from './drive-query.ts'
import {
  APPDATA_SCOPE,
  answerJson,
  type DriveState,
  type FakeFile,
  FILE_SCOPE,
  FULL_SCOPE,
  newId,
  notFound,
  refusal,
  resourceOf,
  type Session,
} from './drive-state.ts'
import { Refusal, readBody } from './http.ts'

/** "Upload file data": chunks are multiples of 256 KiB, and what is kept of one that breaks off is one too. */
export const CHUNK_STEP_BYTES = 256 * 1024
/** "Upload file data": simple and multipart uploads are for 5 MB or less. */
const MULTIPART_MAX_BYTES = 5 * 1024 * 1024

interface Asked {
  request: http.IncomingMessage
  reply: http.ServerResponse
  url: URL
}

/** Serves `/upload/drive/v3/files`. */
export async function serveUploads(state: DriveState, asked: Asked): Promise<void> {
  const { request, url } = asked
  state.requireScope(FULL_SCOPE, FILE_SCOPE, APPDATA_SCOPE)
  const type = url.searchParams.get('uploadType')
  const uploadId = url.searchParams.get('upload_id')
  if (uploadId !== null) await continueSession(state, asked, uploadId)
  else if (request.method !== 'POST') throw refusal(404, 'notFound', 'Not Found')
  else if (type === 'resumable') await beginSession(state, asked)
  else if (type === 'multipart') await uploadMultipart(state, asked)
  else throw refusal(400, 'badRequest', 'The upload type is not supported here.')
}

async function beginSession(state: DriveState, { request, reply, url }: Asked): Promise<void> {
  const metadata = parseMetadata(state, (await readBody(request)).toString('utf8'), url)
  state.checkUploads(Number(request.headers['x-upload-content-length'] ?? 0))
  const id = `AFake${newId()}${newId()}`
  const fields = url.searchParams.get('fields') ?? 'kind,id,name,mimeType'
  const digests = { md5: createHash('md5'), sha256: createHash('sha256') }
  state.sessions.set(id, { metadata, fields, chunks: [], bytes: 0, ...digests })
  state.sessionNames.set(id, metadata.name)
  const location = new URL(url)
  location.searchParams.set('upload_id', id)
  reply.writeHead(200, { location: location.href, 'x-guploader-uploadid': id, 'content-length': 0 }).end()
}

function parseMetadata(state: DriveState, text: string, url: URL): Session['metadata'] {
  const { id, name = 'Untitled', parents, mimeType } = JSON.parse(text) as Partial<FakeFile>
  const parent = state.parentOf(parents)
  if (parent.driveId && url.searchParams.get('supportsAllDrives') !== 'true') throw notFound(parent.id)
  state.checkId(id, parent.space)
  if (id !== undefined) state.fileNames.set(id, name)
  if (id !== undefined && state.files.has(id)) {
    throw refusal(409, 'fileIdInUse', 'A file already exists with the provided ID.')
  }
  return { ...(id ? { id } : {}), name, parents: [parent.id], ...(mimeType ? { mimeType } : {}) }
}

async function continueSession(state: DriveState, { request, reply }: Asked, uploadId: string): Promise<void> {
  const session = state.sessions.get(uploadId)
  if (!session) {
    request.resume()
    throw gone(state, request)
  }
  if (request.method === 'DELETE') {
    if (session.done) throw gone(state, request)
    state.sessions.delete(uploadId)
    // Not in the guide: 499 is what the servers were seen to answer.
    reply.writeHead(499, { 'content-length': 0 }).end()
    return
  }
  if (request.method !== 'PUT') throw refusal(404, 'notFound', 'Not Found')
  // A client that asks again has given up what it sent before: of that, what came is kept, and no more.
  settleArriving(state, session)
  const range = parseContentRange(request)
  if (range.start === undefined) {
    request.resume()
    if (!session.done && range.total === session.bytes) commit(state, session)
    answerSession(state, request, reply, session)
    return
  }
  if (!session.done) await takeChunk(state, request, session, { ...range, start: range.start })
  answerSession(state, request, reply, session)
}

interface ChunkRange {
  start?: number
  end?: number
  total?: number | undefined
}

function parseContentRange(request: http.IncomingMessage): ChunkRange {
  const length = Number(request.headers['content-length'])
  const text = request.headers['content-range'] ?? ''
  const query = /^bytes \*\/(\*|\d+)$/.exec(text)
  if (query && length === 0) return query[1] === '*' ? {} : { total: Number(query[1]) }
  const match = /^bytes (\d+)-(\d+)\/(\*|\d+)$/.exec(text)
  if (!match) throw refusal(400, 'badRequest', 'Failed to parse Content-Range header.')
  const [start, end] = [Number(match[1]), Number(match[2])]
  const total = match[3] === '*' ? undefined : Number(match[3])
  const isAligned = total === end + 1 || length % CHUNK_STEP_BYTES === 0
  if (end - start + 1 !== length || !isAligned || (total !== undefined && total <= end)) {
    throw refusal(400, 'badRequest', 'Invalid Content-Range or Content-Length.')
  }
  return { start, end, total }
}

async function takeChunk(
  state: DriveState,
  request: http.IncomingMessage,
  session: Session,
  { start, end = 0, total }: ChunkRange & { start: number },
): Promise<void> {
  if (start !== session.bytes) {
    throw refusal(400, 'badRequest', `Invalid request. The session has ${session.bytes} bytes.`)
  }
  if (state.usedBytes + end + 1 > state.storageLimit) {
    throw refusal(403, 'storageQuotaExceeded', "The user's Drive storage quota has been exceeded.")
  }
  const arriving = { chunks: [] as Buffer[], bytes: 0 }
  session.arriving = arriving
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      // Read on to its end: a request that is broken off here is neither answered nor is its connection closed.
      if (session.arriving !== arriving) continue
      arriving.chunks.push(chunk)
      arriving.bytes += chunk.length
    }
  } catch (error) {
    if (session.arriving === arriving) settleArriving(state, session)
    throw error
  }
  if (session.arriving !== arriving) throw new Refusal(503, 'superseded')
  delete session.arriving
  const wanted = end - start + 1
  const kept = state.persistNext === undefined ? wanted : Math.min(wanted, stepDown(state.persistNext))
  state.persistNext = undefined
  persist(state, session, arriving.chunks, kept)
  if (kept === wanted && total === end + 1) commit(state, session)
}

function settleArriving(state: DriveState, session: Session): void {
  const { arriving } = session
  delete session.arriving
  if (arriving) persist(state, session, arriving.chunks, stepDown(arriving.bytes))
}

function stepDown(bytes: number): number {
  return Math.floor(bytes / CHUNK_STEP_BYTES) * CHUNK_STEP_BYTES
}

function persist(state: DriveState, session: Session, chunks: Buffer[], bytes: number): void {
  let left = bytes
  for (const chunk of chunks) {
    const kept = chunk.subarray(0, left)
    left -= kept.length
    session.md5.update(kept)
    session.sha256.update(kept)
    session.bytes += kept.length
    if (state.keepsBytes && kept.length > 0) session.chunks.push(kept)
  }
}

function commit(state: DriveState, session: Session): void {
  const { metadata, chunks: data, bytes: size } = session
  session.done = state.create({
    ...metadata,
    size,
    ...(state.keepsBytes ? { data } : {}),
    md5: session.md5.digest('hex'),
    sha256: session.sha256.digest('hex'),
    headRevisionId: newId(),
  })
  // They are the file's.
  session.chunks = []
  if (state.loseNextCommit) state.files.delete(session.done.id)
  state.loseNextCommit = false
}

function answerSession(
  state: DriveState,
  request: http.IncomingMessage,
  reply: http.ServerResponse,
  session: Session,
): void {
  if (session.done) {
    answerJson(request, reply, selectFields(resourceOf(session.done, state), session.fields))
    return
  }
  const range = session.bytes > 0 ? { range: `bytes=0-${session.bytes - 1}` } : {}
  reply.writeHead(308, { 'content-length': 0, ...range }).end()
}

/** As an unknown path is answered: a page that repeats the URL, which here is a secret. */
function gone(state: DriveState, request: http.IncomingMessage): Refusal {
  const page = `<!DOCTYPE html><title>Error ${state.goneStatus}</title><p>The requested URL <code>${request.url}</code> was not found on this server.`
  return new Refusal(state.goneStatus, page)
}

async function uploadMultipart(state: DriveState, { request, reply, url }: Asked): Promise<void> {
  const boundary = /^multipart\/related;.*boundary="?([^";]+)"?/.exec(request.headers['content-type'] ?? '')?.[1]
  if (boundary === undefined) throw refusal(400, 'badContent', 'Missing multipart boundary.')
  const body = await readBody(request)
  const [json, media] = partsOf(body, boundary)
  if (!json || !media) throw refusal(400, 'badContent', 'A multipart upload has two parts.')
  if (media.length > MULTIPART_MAX_BYTES) throw refusal(413, 'uploadTooLarge', 'The file is too large.')
  const metadata = parseMetadata(state, json.toString('utf8'), url)
  state.checkUploads(media.length)
  const file = state.createOf(Buffer.from(media), metadata)
  if (!state.keepsBytes) delete file.data
  if (state.loseNextCommit) state.files.delete(file.id)
  state.loseNextCommit = false
  const fields = url.searchParams.get('fields') ?? 'kind,id,name,mimeType'
  answerJson(request, reply, selectFields(resourceOf(file, state), fields))
}

/** RFC 2046, 5.1: the bodies between the delimiters. */
function partsOf(body: Buffer, boundary: string): Buffer[] {
  const parts: Buffer[] = []
  const delimiter = Buffer.from(`\r\n--${boundary}`)
  const whole = Buffer.concat([Buffer.from('\r\n'), body])
  for (let at = whole.indexOf(delimiter); at >= 0; ) {
    const next = whole.indexOf(delimiter, at + delimiter.length)
    if (next < 0) break
    const head = whole.indexOf('\r\n\r\n', at + delimiter.length)
    if (head >= 0 && head < next) parts.push(whole.subarray(head + 4, next))
    at = next
  }
  return parts
}
