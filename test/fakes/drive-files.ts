import type * as http from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { parseQuery, QueryError, selectFields } from './drive-query.ts'
import {
  APPDATA_SCOPE,
  answerJson,
  contentOf,
  type DriveState,
  type FakeFile,
  FILE_SCOPE,
  FOLDER_TYPE,
  FULL_SCOPE,
  newId,
  notFound,
  READONLY_SCOPE,
  ROOT_ID,
  refusal,
  resourceOf,
  type Space,
} from './drive-state.ts'
import { rangeOf, readBody } from './http.ts'

const WRITING = [FULL_SCOPE, FILE_SCOPE, APPDATA_SCOPE]
const READING = [...WRITING, READONLY_SCOPE]
/** What a File has where no `fields` are asked for. */
const DEFAULT_FIELDS = 'kind,id,name,mimeType'

interface Asked {
  request: http.IncomingMessage
  reply: http.ServerResponse
  query: URLSearchParams
}

/** Serves `/drive/v3/…`: everything but uploads. */
export async function serveFiles(state: DriveState, asked: Asked, path: string): Promise<void> {
  const { request, reply, query } = asked
  const { method = '' } = request
  const [resource, id, rest] = path.split('/').map(decodeURIComponent)
  if (resource === 'about' && method === 'GET') {
    state.requireScope(...READING)
    if (!query.get('fields')) throw refusal(400, 'required', "The 'fields' parameter is required for this method.")
    answerJson(request, reply, {
      user: { kind: 'drive#user', displayName: 'A Fake', emailAddress: 'fake@example.com' },
    })
    return
  }
  if (resource !== 'files' || rest !== undefined) throw refusal(404, 'notFound', 'Not Found')
  if (id === 'generateIds' && method === 'GET') generateIds(state, asked)
  else if (id === undefined && method === 'GET') list(state, asked)
  else if (id === undefined && method === 'POST') await create(state, asked)
  else if (id !== undefined && method === 'GET') get(state, asked, id)
  else if (id !== undefined && method === 'PATCH') await update(state, asked, id)
  else if (id !== undefined && method === 'DELETE') remove(state, asked, id)
  else throw refusal(404, 'notFound', 'Not Found')
}

function generateIds(state: DriveState, { request, reply, query }: Asked): void {
  state.requireScope(...WRITING)
  const count = Number(query.get('count') ?? 10)
  const space = (query.get('space') ?? 'drive') as Space
  if (!(count >= 1 && count <= 1000)) throw refusal(400, 'invalidParameter', 'Invalid value for count')
  const ids = Array.from({ length: count }, newId)
  for (const id of ids) state.generatedIds.set(id, space)
  answerJson(request, reply, selectFields({ kind: 'drive#generatedIds', space, ids }, query.get('fields') ?? '*'))
}

function list(state: DriveState, { request, reply, query }: Asked): void {
  state.requireScope(...READING)
  const q = query.get('q') ?? ''
  const size = Math.min(Number(query.get('pageSize') ?? 100), 1000)
  const token = query.get('pageToken')
  const page = token === null ? undefined : state.pages.get(token)
  if (token !== null && page?.q !== q) throw refusal(400, 'invalid', 'Invalid Value')
  const shown = state.listing ?? [...state.files.values()]
  const ids = page?.ids ?? search(state, shown, query, q)
  const found = new Map(shown.map((file) => [file.id, file]))
  const files = ids
    .slice(0, size)
    .flatMap((id) => found.get(id) ?? [])
    .map((file) => resourceOf(file, state))
  const left = ids.slice(size)
  const nextPageToken = left.length > 0 ? `~!!~${newId()}` : undefined
  if (nextPageToken) state.pages.set(nextPageToken, { q, ids: left })
  const whole = { kind: 'drive#fileList', nextPageToken, incompleteSearch: state.incompleteSearch, files }
  const mask = query.get('fields') ?? `kind,incompleteSearch,nextPageToken,files(${DEFAULT_FIELDS})`
  answerJson(request, reply, selectFields(whole, mask))
}

function search(state: DriveState, shown: FakeFile[], query: URLSearchParams, q: string): string[] {
  const space = query.get('spaces') ?? 'drive'
  const driveId = query.get('driveId')
  if (space === 'appDataFolder' && !state.scopes.includes(APPDATA_SCOPE)) {
    const message = 'The granted scopes do not give access to all of the requested spaces.'
    throw refusal(403, 'insufficientScopes', message)
  }
  if (driveId !== null) {
    const isWhole = query.get('corpora') === 'drive' && query.get('includeItemsFromAllDrives') === 'true'
    if (!isWhole || query.get('supportsAllDrives') !== 'true') {
      throw refusal(403, 'teamDrivesParentLimit', 'The driveId parameter needs corpora=drive and the all drives flags.')
    }
    if (state.files.get(driveId)?.driveId !== driveId) {
      throw refusal(404, 'notFound', `Shared drive not found: ${driveId}`)
    }
  }
  const seeParent = (id: string): string => {
    if (id === 'root') return ROOT_ID
    const parent = state.files.get(id)
    if (!parent || !(state.sees(parent) || id === 'appDataFolder')) throw notFound('.')
    return id
  }
  try {
    const matches = parseQuery(q, seeParent)
    return shown
      .filter((file) => file.space === space && (file.driveId ?? null) === driveId)
      .filter((file) => state.sees(file) && matches(file))
      .map((file) => file.id)
      .sort()
  } catch (error) {
    if (error instanceof QueryError) throw refusal(400, 'invalid', 'Invalid Value')
    throw error
  }
}

async function create(state: DriveState, { request, reply, query }: Asked): Promise<void> {
  state.requireScope(...WRITING)
  const metadata = JSON.parse((await readBody(request)).toString('utf8')) as Partial<FakeFile>
  const parent = state.parentOf(metadata.parents)
  if (parent.driveId && query.get('supportsAllDrives') !== 'true') throw notFound(parent.id)
  state.checkId(metadata.id, parent.space)
  const { id, name = 'Untitled', mimeType } = metadata
  const content = mimeType === FOLDER_TYPE ? {} : contentOf(Buffer.alloc(0))
  const made = { ...content, ...(id ? { id } : {}), ...(mimeType ? { mimeType } : {}), name, parents: [parent.id] }
  const file = state.create(made)
  answerJson(request, reply, selectFields(resourceOf(file, state), query.get('fields') ?? DEFAULT_FIELDS))
}

function get(state: DriveState, { request, reply, query }: Asked, id: string): void {
  state.requireScope(...READING)
  const file = state.fileOf(id === 'root' ? ROOT_ID : id)
  if (file.driveId && query.get('supportsAllDrives') !== 'true') throw notFound(id)
  if (query.get('alt') !== 'media') {
    answerJson(request, reply, selectFields(resourceOf(file, state), query.get('fields') ?? DEFAULT_FIELDS))
    return
  }
  if (file.mimeType.startsWith('application/vnd.google-apps.')) {
    throw refusal(403, 'fileNotDownloadable', 'Only files with binary content can be downloaded.')
  }
  if (file.abusive && query.get('acknowledgeAbuse') !== 'true') {
    const message = 'This file has been identified as malware or spam and cannot be downloaded.'
    throw refusal(403, 'cannotDownloadAbusiveFile', message)
  }
  if (!file.data) throw refusal(500, 'backendError', 'The bytes were discarded.')
  const range = rangeOf(request, file.size)
  if (range === 416) {
    reply.writeHead(416, { 'content-range': `bytes */${file.size}`, 'content-length': 0 }).end()
    return
  }
  const { start, end } = range ?? { start: 0, end: file.size - 1 }
  const headers = { 'content-type': file.mimeType, 'content-length': end + 1 - start, 'accept-ranges': 'bytes' }
  const partial = { ...headers, 'content-range': `bytes ${start}-${end}/${file.size}` }
  reply.writeHead(range ? 206 : 200, range ? partial : headers)
  // Not in one buffer: a file may be GiB. A client that goes away is no failure.
  pipeline(Readable.from(slicesOf(file.data, start, end), { objectMode: false }), reply, () => {})
}

function* slicesOf(chunks: Buffer[], start: number, end: number): Generator<Buffer> {
  let at = 0
  for (const chunk of chunks) {
    if (at + chunk.length > start && at <= end) yield chunk.subarray(Math.max(0, start - at), end + 1 - at)
    at += chunk.length
  }
}

async function update(state: DriveState, { request, reply, query }: Asked, id: string): Promise<void> {
  state.requireScope(...WRITING)
  const changes = JSON.parse((await readBody(request)).toString('utf8')) as { trashed?: boolean; name?: string }
  const file = state.fileOf(id)
  if (file.driveId && query.get('supportsAllDrives') !== 'true') throw notFound(id)
  if (changes.trashed !== undefined) {
    if (!file.mayTrash) throw missingPermission()
    file.trashed = changes.trashed
  }
  if (changes.name !== undefined) file.name = changes.name
  answerJson(request, reply, selectFields(resourceOf(file, state), query.get('fields') ?? DEFAULT_FIELDS))
}

function remove(state: DriveState, { reply, query }: Asked, id: string): void {
  state.requireScope(...WRITING)
  const file = state.fileOf(id)
  if (file.driveId && query.get('supportsAllDrives') !== 'true') throw notFound(id)
  if (!file.mayDelete) throw missingPermission()
  removeTree(state, id)
  reply.writeHead(204).end()
}

/** Removes a file, or a folder and all that is in it. */
export function removeTree(state: DriveState, id: string): void {
  // The session that it was uploaded by still knows it, but its bytes are gone.
  delete state.files.get(id)?.data
  state.files.delete(id)
  for (const file of [...state.files.values()]) if (file.parents.includes(id)) removeTree(state, file.id)
}

function missingPermission(): Error {
  const message = 'The user does not have sufficient permissions for this file.'
  return refusal(403, 'insufficientFilePermissions', message)
}
