import type { IncomingMessage, ServerResponse } from 'node:http'
import { badInput, union } from './dropbox-errors.ts'
import { type FakeFile, type FakeFolder, type FakeTree, lower, type Mode, TreeError } from './dropbox-tree.ts'
import { Refusal, rangeOf } from './http.ts'

/** A route's argument, as it came. */
export type Arg = Record<string, unknown>
type Handle = (call: {
  arg: Arg
  body: Buffer
  tree: FakeTree
  request: IncomingMessage
  reply: ServerResponse
}) => unknown

/** What a route takes and does. */
export interface Route {
  style: 'rpc' | 'upload' | 'download'
  scope: string
  /** What Dropbox knows; anything else is refused. */
  fields: string[]
  handle: Handle
}

/** The fields of CommitInfo. */
export const COMMIT = ['path', 'mode', 'autorename', 'client_modified', 'mute', 'property_groups', 'strict_conflict']

/** The argument of a request, from its body or its header. @throws Refusal 400 for what Dropbox would not read */
export function argOf(request: IncomingMessage, name: string, route: Route, body: Buffer): Arg {
  const { 'content-type': type, 'dropbox-api-arg': header } = request.headers
  const wanted = { rpc: 'application/json', upload: 'application/octet-stream', download: undefined }[route.style]
  if (wanted !== undefined && !type?.startsWith(wanted)) {
    throw badInput(name, `Bad HTTP "Content-Type" header: "${type}". Expecting "${wanted}".`)
  }
  const text = route.style === 'rpc' ? body.toString('utf8') : String(header)
  if (route.style !== 'rpc' && !/^[\x20-\x7e]+$/.test(text)) {
    throw badInput(name, 'HTTP header "Dropbox-API-Arg": could not decode input as JSON')
  }
  let arg: Arg
  try {
    arg = JSON.parse(text) as Arg
  } catch {
    throw badInput(name, 'request body: could not decode input as JSON')
  }
  for (const field of Object.keys(arg)) {
    if (!route.fields.includes(field)) throw badInput(name, `request body: unknown field '${field}'`)
  }
  return arg
}

/** What CommitInfo asks for, its defaults filled in. @throws Refusal 400 */
export function commitOf(arg: Arg): { path: string; mode: Mode; strict: boolean; clientModified: string | undefined } {
  for (const field of Object.keys(arg)) {
    if (![...COMMIT, 'content_hash'].includes(field)) throw badInput('files/upload', `unknown field '${field}'`)
  }
  const mode = typeof arg.mode === 'string' ? ({ '.tag': arg.mode } as Mode) : ((arg.mode ?? union(['add'])) as Mode)
  const clientModified = arg.client_modified as string | undefined
  if (clientModified !== undefined && !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(clientModified)) {
    throw badInput('files/upload', `client_modified: time data '${clientModified}' does not match the format`)
  }
  return { path: String(arg.path), mode, strict: arg.strict_conflict === true, clientModified }
}

/** FileMetadata or FolderMetadata; `tagged` where either could stand. */
export function metadataOf(entry: FakeFile | FakeFolder, tagged = true): Record<string, unknown> {
  const names = {
    name: nameOf(entry.display),
    path_lower: lower(entry.display),
    path_display: entry.display,
    id: entry.id,
  }
  const tag = tagged ? { '.tag': entry.kind } : {}
  if (entry.kind === 'folder') return { ...tag, ...names }
  return {
    ...tag,
    ...names,
    client_modified: entry.clientModified,
    server_modified: entry.serverModified,
    rev: entry.rev,
    size: entry.size,
    is_downloadable: true,
    content_hash: entry.hash,
  }
}

/** The file at a path, or of a revision, to be downloaded. @throws TreeError with the tags of LookupError */
export function fileAt(tree: FakeTree, path: string): FakeFile {
  const there = tree.find(path)
  if (!there) throw new TreeError('not_found')
  if (there.kind === 'folder') throw new TreeError('not_file')
  if (there.bytes === undefined) throw new TreeError('restricted_content')
  return there
}

/** Answers with a file's bytes, or the range of them that the request asks for. @throws Refusal 416 */
export function download(request: IncomingMessage, reply: ServerResponse, file: FakeFile): ServerResponse {
  const bytes = file.bytes!
  const range = rangeOf(request, file.size)
  // Not documented: a status without a body that a client could count on.
  if (range === 416) throw new Refusal(416, '', { 'content-range': `bytes */${file.size}` })
  const { start, end } = range ?? { start: 0, end: file.size - 1 }
  const result = JSON.stringify(metadataOf(file, false)).replace(/[\u007f-\uffff]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
  reply.writeHead(range ? 206 : 200, {
    'content-type': 'application/octet-stream',
    'content-length': end + 1 - start,
    'accept-ranges': 'bytes',
    etag: `W/"${file.rev}"`,
    'dropbox-api-result': result,
    ...(range ? { 'content-range': `bytes ${start}-${end}/${file.size}` } : {}),
  })
  reply.end(bytes.subarray(start, end + 1))
  return reply
}

/** The last component of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}
