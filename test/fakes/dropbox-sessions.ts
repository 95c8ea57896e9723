import { createHash, randomBytes } from 'node:crypto'
import { routeError } from './dropbox-errors.ts'
import { ContentHasher } from './dropbox-hash.ts'

/** https://github.com/dropbox/dropbox-api-spec, files.stone: UploadSessionLookupError.too_large */
const FILE_MAX_BYTES = 2 ** 41 - 2 ** 22

interface Session {
  type: 'sequential' | 'concurrent'
  closed: boolean
  finished: boolean
  /** Of a concurrent session, by offset; of a sequential one in order. Lengths alone where no bytes are kept. */
  pieces: Map<number, { length: number; bytes: Buffer | undefined; hash: Buffer[] | undefined }>
  /** Of a sequential session. */
  hasher: ContentHasher
  hash: string | undefined
  size: number
}

/** What becomes of a session. */
export interface SessionContent {
  size: number
  hash: string
  bytes: Buffer | undefined
}

/** UploadSessionCursor. */
export interface Cursor {
  session_id: string
  offset: number
}

/** The upload sessions of an account. */
export class FakeSessions {
  /** Whether a session that has become a file can be finished once more. */
  keepFinished = true
  readonly #blockBytes: number
  readonly #keepsBytes: boolean
  readonly #sessions = new Map<string, Session>()

  constructor(blockBytes: number, keepsBytes: boolean) {
    this.#blockBytes = blockBytes
    this.#keepsBytes = keepsBytes
  }

  /** Begun, and not become a file. */
  get open(): number {
    return [...this.#sessions.values()].filter(({ finished }) => !finished).length
  }

  /** As after seven days. */
  loseAll(): void {
    this.#sessions.clear()
  }

  /** Begins one. @returns its id. @throws Refusal as upload_session/start does */
  start(type: Session['type'], close: boolean, body: Buffer): string {
    if (type === 'concurrent' && body.length > 0) throw routeError(['concurrent_session_data_not_allowed'])
    if (type === 'concurrent' && close) throw routeError(['concurrent_session_close_not_allowed'])
    const id = `pid_upload_session:${randomBytes(18).toString('base64url')}`
    const hasher = new ContentHasher(this.#blockBytes)
    const session: Session = {
      type,
      closed: false,
      finished: false,
      pieces: new Map(),
      hasher,
      hash: undefined,
      size: 0,
    }
    this.#sessions.set(id, session)
    this.#add(session, 0, body)
    session.closed = close
    return id
  }

  /** @throws Refusal as upload_session/append_v2 does */
  append(cursor: Cursor, body: Buffer, close: boolean): void {
    const session = this.#find(cursor, [])
    if (session.closed) throw routeError(['closed'])
    if (cursor.offset + body.length > FILE_MAX_BYTES) throw routeError(['too_large'])
    if (session.type === 'sequential') this.#checkOffset(session, cursor, [])
    else this.#checkConcurrent(cursor, body, close)
    this.#add(session, cursor.offset, body)
    session.closed = close
  }

  /** Keeps the first half of the body of an append to a sequential session, as a server that dies may. */
  appendHalf(cursor: Cursor, body: Buffer): void {
    const session = this.#find(cursor, [])
    this.#checkOffset(session, cursor, [])
    this.#add(session, cursor.offset, body.subarray(0, body.length >> 1))
  }

  /** What the session holds, once the body of finish is added to it. @throws Refusal as upload_session/finish does */
  content(cursor: Cursor, body: Buffer): SessionContent {
    const wrap = ['lookup_failed']
    const session = this.#find(cursor, wrap)
    if (session.type === 'concurrent') {
      if (body.length > 0) throw routeError(['concurrent_session_data_not_allowed'])
      if (!session.closed) throw routeError(['concurrent_session_not_closed'])
      return this.#joined(session, cursor)
    }
    this.#checkOffset(session, cursor, wrap)
    this.#add(session, cursor.offset, body)
    const pieces = [...session.pieces.values()].map((piece) => piece.bytes as Buffer)
    const bytes = !this.#keepsBytes ? undefined : pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
    // Once: they may be GiB.
    if (bytes) session.pieces = new Map([[0, { length: bytes.length, bytes, hash: undefined }]])
    session.hash ??= session.hasher.digest()
    return { size: session.size, hash: session.hash, bytes }
  }

  /** Notes that a session has become a file. */
  finish(id: string): void {
    const session = this.#sessions.get(id)
    if (!session) return
    session.finished = true
    session.closed = true
    if (!this.keepFinished) this.#sessions.delete(id)
  }

  /** @param wrap the tags that finish puts around the errors of a session. */
  #find({ session_id: id }: Cursor, wrap: readonly string[]): Session {
    const session = this.#sessions.get(id)
    if (!session) throw routeError([...wrap, 'not_found'])
    return session
  }

  #checkOffset(session: Session, { offset }: Cursor, wrap: readonly string[]): void {
    if (offset !== session.size) throw routeError([...wrap, 'incorrect_offset'], { correct_offset: session.size })
  }

  #checkConcurrent({ offset }: Cursor, body: Buffer, close: boolean): void {
    if (offset % this.#blockBytes !== 0) throw routeError(['concurrent_session_invalid_offset'])
    if (body.length % this.#blockBytes !== 0 && !close) {
      throw routeError(['concurrent_session_invalid_data_size'])
    }
  }

  #add(session: Session, offset: number, body: Buffer): void {
    if (body.length === 0) return
    const bytes = this.#keepsBytes ? body : undefined
    if (session.type === 'sequential') {
      session.hasher.update(body)
      session.pieces.set(offset, { length: body.length, bytes, hash: undefined })
    } else {
      const hash = this.#keepsBytes ? undefined : blockHashes(body, this.#blockBytes)
      session.pieces.set(offset, { length: body.length, bytes, hash })
    }
    session.size = Math.max(session.size, offset + body.length)
  }

  #joined(session: Session, { offset }: Cursor): SessionContent {
    const pieces = [...session.pieces].sort(([a], [b]) => a - b)
    let end = 0
    for (const [at, { length }] of pieces) {
      if (at !== end) throw routeError(['concurrent_session_missing_data'])
      end += length
    }
    if (end !== offset) throw routeError(['lookup_failed', 'incorrect_offset'], { correct_offset: end })
    if (this.#keepsBytes) {
      const bytes = Buffer.concat(pieces.map(([, piece]) => piece.bytes as Buffer))
      return { size: end, hash: new ContentHasher(this.#blockBytes).update(bytes).digest(), bytes }
    }
    const digests = pieces.flatMap(([, piece]) => piece.hash as Buffer[])
    return { size: end, hash: sha256(Buffer.concat(digests)).toString('hex'), bytes: undefined }
  }
}

function blockHashes(body: Buffer, blockBytes: number): Buffer[] {
  const hashes: Buffer[] = []
  for (let at = 0; at < body.length; at += blockBytes) hashes.push(sha256(body.subarray(at, at + blockBytes)))
  return hashes
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}
