import { randomBytes } from 'node:crypto'
import type * as http from 'node:http'
import { finished } from 'node:stream/promises'
import { removeTree, serveFiles } from './drive-files.ts'
import {
  type ArmedRefusal,
  answerJson,
  contentOf,
  DriveState,
  type FakeFile,
  FOLDER_TYPE,
  newId,
  ROOT_ID,
  refusal,
} from './drive-state.ts'
import { serveUploads } from './drive-uploads.ts'
import { Refusal, readBody, serveFake } from './http.ts'

export interface DriveFakeOptions {
  /** Hashes what is uploaded, and keeps none of it. */
  discard?: boolean
}

/** Google Drive, and Google's token endpoint, as far as a client that stores files sees them. */
export interface DriveFake {
  origin: string
  state: DriveState
  /** Uploads begun, and neither committed nor cancelled. */
  readonly pendingSessions: number
  /** Every access token is refused from now on. */
  expireTokens(): void
  /** As when the user takes the app's access away. */
  revokeSignIn(): void
  /** Forgets every upload session. */
  loseSessions(status?: 404 | 410): void
  /** Listings show what there is now, whatever is done after; `thaw` ends it. */
  freezeListings(): void
  thawListings(): void
  /** Refuses the next requests that match, after the token was checked. Default once. */
  refuse(refusal: Omit<ArmedRefusal, 'times'> & { times?: number }): void
  /** What people, or other apps, put there. @returns the folder or file, beneath My Drive where no parent is told. */
  addFolder(name: string, more?: Partial<FakeFile>): FakeFile
  addFile(name: string, bytes: Buffer, more?: Partial<FakeFile>): FakeFile
  addSharedDrive(): FakeFile
  /** As when a folder is deleted in the browser, for good. */
  removeTree(id: string): void
  /** Gives a file new content under its id, as people do in the browser. */
  changeInPlace(id: string, bytes: Buffer): void
  /** Files of that name that are not in the trash. */
  named(name: string): FakeFile[]
  close(): Promise<void>
}

/** Starts the fake on loopback. */
export async function startDriveFake(options: DriveFakeOptions = {}): Promise<DriveFake> {
  const state = new DriveState(!options.discard)
  state.create({ id: ROOT_ID, name: 'My Drive', mimeType: FOLDER_TYPE, parents: [], ownedByApp: false })
  const appData = { mimeType: FOLDER_TYPE, parents: [], space: 'appDataFolder' as const }
  state.create({ id: 'appDataFolder', name: 'Application Data', ...appData })

  const server = await serveFake(async (request, reply, url) => {
    if (url.pathname === '/token' && request.method === 'POST') {
      await serveToken(state, request, reply)
      return
    }
    try {
      await serveDrive(state, request, reply, url)
    } catch (error) {
      // A proxy in between holds an answer back that comes before it has passed the whole body on.
      if (!request.readableEnded && !request.destroyed) await finished(request.resume()).catch(() => {})
      throw error
    }
  })

  return {
    origin: server.origin,
    state,
    get pendingSessions() {
      return [...state.sessions.values()].filter((session) => !session.done).length
    },
    expireTokens: () => state.accessTokens.clear(),
    revokeSignIn() {
      state.refreshToken = undefined
      state.accessTokens.clear()
    },
    loseSessions(status = 404) {
      state.sessions.clear()
      state.goneStatus = status
    },
    freezeListings() {
      state.listing = [...state.files.values()].map((file) => ({ ...file }))
    },
    thawListings() {
      state.listing = undefined
    },
    refuse: ({ times = 1, ...rest }) => void state.armed.push({ ...rest, times }),
    addFolder: (name, more = {}) => state.create({ name, mimeType: FOLDER_TYPE, parents: [ROOT_ID], ...more }),
    addFile: (name, bytes, more = {}) => state.createOf(bytes, { name, parents: [ROOT_ID], ...more }),
    addSharedDrive() {
      const id = `0A${newId()}`
      return state.create({ id, name: 'Drive', mimeType: FOLDER_TYPE, parents: [], driveId: id })
    },
    removeTree: (id) => removeTree(state, id),
    changeInPlace(id, bytes) {
      Object.assign(state.fileOf(id), contentOf(bytes), { modifiedTime: state.now() })
    },
    named: (name) => [...state.files.values()].filter((file) => file.name === name && !file.trashed),
    close: () => server.close(),
  }
}

async function serveDrive(
  state: DriveState,
  request: http.IncomingMessage,
  reply: http.ServerResponse,
  url: URL,
): Promise<void> {
  checkAccess(state, request)
  refuseArmed(state, request, url)
  const files = '/drive/v3/'
  if (url.pathname === '/upload/drive/v3/files') await serveUploads(state, { request, reply, url })
  else if (url.pathname.startsWith(files)) {
    await serveFiles(state, { request, reply, query: url.searchParams }, url.pathname.slice(files.length))
  } else throw refusal(404, 'notFound', 'Not Found')
}

/** "Using OAuth 2.0 to Access Google APIs": refreshing an access token. Errors as RFC 6749, 5.2 has them. */
async function serveToken(state: DriveState, request: http.IncomingMessage, reply: http.ServerResponse): Promise<void> {
  state.tokenRequests++
  const form = new URLSearchParams((await readBody(request)).toString('utf8'))
  if (state.tokenRefusal) {
    const { status, ...told } = state.tokenRefusal
    throw new Refusal(status, told)
  }
  if (form.get('grant_type') !== 'refresh_token') throw new Refusal(400, { error: 'unsupported_grant_type' })
  if (form.get('client_id') !== state.clientId || form.get('client_secret') !== state.clientSecret) {
    throw new Refusal(401, { error: 'invalid_client', error_description: 'The OAuth client was not found.' })
  }
  if (state.refreshToken === undefined || form.get('refresh_token') !== state.refreshToken) {
    throw new Refusal(400, {
      error: 'invalid_grant',
      error_description: 'Token has been expired or revoked.',
    })
  }
  const token = `ya29.fake-${randomBytes(30).toString('base64url')}`
  state.accessTokens.add(token)
  state.issuedTokens.push(token)
  const scope = state.scopes.join(' ')
  answerJson(request, reply, { access_token: token, expires_in: state.tokenLifetimeS, scope, token_type: 'Bearer' })
}

function checkAccess(state: DriveState, request: http.IncomingMessage): void {
  const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
  if (token === undefined || !state.accessTokens.has(token)) {
    throw refusal(401, 'authError', 'Invalid Credentials', { status: 'UNAUTHENTICATED' })
  }
  if (!state.apiEnabled) {
    const message =
      'Google Drive API has not been used in project 123 before or it is disabled. Enable it by visiting https://console.developers.google.com/apis/api/drive.googleapis.com/overview?project=123 then retry.'
    throw refusal(403, 'accessNotConfigured', message, { status: 'PERMISSION_DENIED' }, 'usageLimits')
  }
}

function refuseArmed(state: DriveState, request: http.IncomingMessage, url: URL): void {
  const asked = { method: request.method ?? '', path: url.pathname, query: url.searchParams }
  const found = state.armed.find((item) => item.times > 0 && item.match(asked))
  if (!found) return
  found.times--
  const { status, reason, message, headers } = found
  throw new Refusal(status, refusal(status, reason, message).body, headers)
}
