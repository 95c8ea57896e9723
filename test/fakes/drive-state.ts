import { createHash, type Hash, randomBytes } from 'node:crypto'
import type * as http from 'node:http'
import { gzipSync } from 'node:zlib'
import { Refusal } from './http.ts'

export const FOLDER_TYPE = 'application/vnd.google-apps.folder'
export const FULL_SCOPE = 'https://www.googleapis.com/auth/drive'
export const FILE_SCOPE = 'https://www.googleapis.com/auth/drive.file'
export const APPDATA_SCOPE = 'https://www.googleapis.com/auth/drive.appdata'
export const READONLY_SCOPE = 'https://www.googleapis.com/auth/drive.readonly'
export const ROOT_ID = '0ROOT-of-my-drive'

export type Space = 'drive' | 'appDataFolder'

export interface FakeFile {
  id: string
  name: string
  mimeType: string
  parents: string[]
  space: Space
  driveId?: string
  createdTime: number
  modifiedTime: number
  trashed: boolean
  size: number
  /** Absent of a folder, and where bytes are discarded. */
  data?: Buffer[]
  md5?: string
  sha256?: string
  headRevisionId?: string
  /** Whether the app under test made it: with the scope drive.file it sees no other. */
  ownedByApp: boolean
  /** What Google takes for malware. */
  abusive?: boolean
  /** What the account may do with it. */
  mayDelete: boolean
  mayTrash: boolean
}

/** One resumable upload. */
export interface Session {
  metadata: { id?: string; name: string; parents: string[]; mimeType?: string }
  fields: string
  chunks: Buffer[]
  bytes: number
  md5: Hash
  sha256: Hash
  /** The File, once it is committed. */
  done?: FakeFile
  /** What of the request under way has come; another request takes its place. */
  arriving?: { chunks: Buffer[]; bytes: number }
}

/** A refusal that is armed for requests that match. */
export interface ArmedRefusal {
  match: (request: { method: string; path: string; query: URLSearchParams }) => boolean
  times: number
  status: number
  reason: string
  message: string
  headers?: Record<string, string>
}

/** All that the fake knows, and what tests change of it. */
export class DriveState {
  readonly clientId = 'fake-client-id.apps.googleusercontent.com'
  readonly clientSecret = 'GOCSPX-fake-client-secret'
  refreshToken: string | undefined = '1//fake-refresh-token'
  /** What every request for a token is answered. */
  tokenRefusal: { status: number; error: string; error_description: string } | undefined
  readonly files = new Map<string, FakeFile>()
  readonly sessions = new Map<string, Session>()
  readonly generatedIds = new Map<string, Space>()
  readonly pages = new Map<string, { q: string; ids: string[] }>()
  readonly accessTokens = new Set<string>()
  readonly issuedTokens: string[] = []
  /** Of every file that ever was, or was to be: its name. */
  readonly fileNames = new Map<string, string>()
  /** Of every session that ever was: the name of its file. */
  readonly sessionNames = new Map<string, string>()
  readonly armed: ArmedRefusal[] = []
  scopes = [FILE_SCOPE, APPDATA_SCOPE]
  tokenLifetimeS = 3599
  tokenRequests = 0
  apiEnabled = true
  /** The account has uploaded its 750 GB of the day. */
  dailyLimitReached = false
  storageLimit = Number.POSITIVE_INFINITY
  incompleteSearch = false
  withSha256 = true
  /** Of the next chunk, so many bytes at most are kept. */
  persistNext: number | undefined
  /** The next commit is reported as good, and there is no file. */
  loseNextCommit = false
  goneStatus: 404 | 410 = 404
  /** What listings show instead of what is there. */
  listing: FakeFile[] | undefined
  readonly keepsBytes: boolean
  #lastTime = 0

  constructor(keepsBytes: boolean) {
    this.keepsBytes = keepsBytes
  }

  /** Of the server's clock, in milliseconds; never the same twice. */
  now(): number {
    this.#lastTime = Math.max(Date.now(), this.#lastTime + 1)
    return this.#lastTime
  }

  get usedBytes(): number {
    let bytes = 0
    for (const file of this.files.values()) bytes += file.size
    return bytes
  }

  sees(file: FakeFile): boolean {
    if (file.space === 'appDataFolder') return this.scopes.includes(APPDATA_SCOPE)
    const seesAll = this.scopes.includes(FULL_SCOPE) || this.scopes.includes(READONLY_SCOPE)
    return seesAll || (this.scopes.includes(FILE_SCOPE) && file.ownedByApp)
  }

  requireScope(...scopes: string[]): void {
    if (scopes.some((scope) => this.scopes.includes(scope))) return
    const details = [
      {
        '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
        reason: 'ACCESS_TOKEN_SCOPE_INSUFFICIENT',
        domain: 'googleapis.com',
      },
    ]
    const message = 'Request had insufficient authentication scopes.'
    throw refusal(403, 'insufficientPermissions', message, { status: 'PERMISSION_DENIED', details })
  }

  /** @throws Refusal 404 for a file that is not there, or that the app does not see. */
  fileOf(id: string): FakeFile {
    const file = this.files.get(id)
    if (file && this.sees(file)) return file
    throw notFound(id)
  }

  /** Makes a file of bytes that are all there. @throws Refusal 409 when its id is taken. */
  create(file: Partial<FakeFile> & Pick<FakeFile, 'name' | 'parents'>): FakeFile {
    const id = file.id ?? newId()
    if (this.files.has(id)) throw refusal(409, 'fileIdInUse', 'A file already exists with the provided ID.')
    const time = this.now()
    const parent = this.files.get(file.parents[0] ?? '')
    const made: FakeFile = {
      id,
      mimeType: 'application/octet-stream',
      space: parent?.space ?? 'drive',
      ...(parent?.driveId ? { driveId: parent.driveId } : {}),
      createdTime: time,
      modifiedTime: time,
      trashed: false,
      size: 0,
      ownedByApp: true,
      mayDelete: true,
      mayTrash: true,
      ...file,
    }
    this.files.set(id, made)
    this.fileNames.set(id, made.name)
    return made
  }

  /** As `create`, of `bytes`. */
  createOf(bytes: Buffer, file: Partial<FakeFile> & Pick<FakeFile, 'name' | 'parents'>): FakeFile {
    return this.create({ ...contentOf(bytes), ...file })
  }

  /** Where new files of these parents go; ids of `root` are of My Drive. @throws Refusal 404 */
  parentOf(parents: readonly string[] = ['root']): FakeFile {
    const [id = 'root'] = parents
    if (parents.length > 1) throw refusal(403, 'cannotAddParent', 'Increasing the number of parents is not allowed')
    if (id === 'root') return this.files.get(ROOT_ID)!
    if (id === 'appDataFolder') {
      this.requireScope(APPDATA_SCOPE)
      return this.files.get('appDataFolder')!
    }
    const parent = this.fileOf(id)
    if (parent.mimeType !== FOLDER_TYPE) throw refusal(403, 'parentNotAFolder', 'The specified parent is not a folder.')
    return parent
  }

  /** @throws Refusal 400 for an id that generateIds has not given for this space. */
  checkId(id: string | undefined, space: Space): void {
    if (id === undefined || this.generatedIds.get(id) === space) return
    throw refusal(400, 'invalid', 'The provided file ID is not usable.')
  }

  checkUploads(moreBytes: number): void {
    if (this.dailyLimitReached) {
      throw refusal(403, 'userRateLimitExceeded', 'User rate limit exceeded.', {}, 'usageLimits')
    }
    if (this.usedBytes + moreBytes > this.storageLimit) {
      throw refusal(403, 'storageQuotaExceeded', "The user's Drive storage quota has been exceeded.")
    }
  }
}

export function contentOf(bytes: Buffer): Pick<FakeFile, 'size' | 'data' | 'md5' | 'sha256' | 'headRevisionId'> {
  const digest = (algorithm: string) => createHash(algorithm).update(bytes).digest('hex')
  const headRevisionId = newId()
  return { size: bytes.length, data: [bytes], md5: digest('md5'), sha256: digest('sha256'), headRevisionId }
}

export function newId(): string {
  return randomBytes(25).toString('base64url').slice(0, 33)
}

/** An error as the guide "Resolve errors" shows them. */
export function refusal(
  status: number,
  reason: string,
  message: string,
  more: Record<string, unknown> = {},
  domain = 'global',
): Refusal {
  return new Refusal(status, { error: { code: status, message, errors: [{ message, domain, reason }], ...more } })
}

export function notFound(id: string): Refusal {
  return refusal(404, 'notFound', `File not found: ${id}.`)
}

/** The resource of a file, whole: `fields` selects from it. Sizes and times are strings. */
export function resourceOf(file: FakeFile, state: DriveState): Record<string, unknown> {
  const isFolder = file.mimeType === FOLDER_TYPE
  return {
    kind: 'drive#file',
    id: file.id,
    name: file.name,
    mimeType: file.mimeType,
    parents: file.parents,
    trashed: file.trashed,
    createdTime: new Date(file.createdTime).toISOString(),
    modifiedTime: new Date(file.modifiedTime).toISOString(),
    capabilities: { canAddChildren: isFolder, canDelete: file.mayDelete, canTrash: file.mayTrash },
    ...(file.driveId ? { driveId: file.driveId } : {}),
    ...(isFolder
      ? {}
      : {
          size: String(file.size),
          md5Checksum: file.md5,
          headRevisionId: file.headRevisionId,
          ...(state.withSha256 ? { sha256Checksum: file.sha256 } : {}),
        }),
  }
}

/** Answers with JSON, compressed where the client says that it takes it, as Google's servers do. */
export function answerJson(request: http.IncomingMessage, reply: http.ServerResponse, body: unknown): void {
  const plain = Buffer.from(JSON.stringify(body))
  const takesGzip = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))
  const bytes = takesGzip ? gzipSync(plain) : plain
  const encoding = takesGzip ? { 'content-encoding': 'gzip' } : {}
  const type = 'application/json; charset=UTF-8'
  reply.writeHead(200, { 'content-type': type, 'content-length': bytes.length, ...encoding }).end(bytes)
}
