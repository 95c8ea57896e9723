import type { IncomingMessage, ServerResponse } from 'node:http'
import { authError, badInput, pathRootError, rateLimit, routeError, uploadError } from './dropbox-errors.ts'
import { ContentHasher } from './dropbox-hash.ts'
import { type Cursor, FakeSessions } from './dropbox-sessions.ts'
import { FakeTree, lower, TreeError } from './dropbox-tree.ts'
import { type Arg, argOf, COMMIT, commitOf, download, fileAt, metadataOf, nameOf, type Route } from './dropbox-wire.ts'
import { type FakeServer, Refusal, readBody, sendJson, serveFake } from './http.ts'
import { FakeTokens } from './oauth.ts'

const REQUEST_MAX_BYTES = 150 * 1024 * 1024
const HOME = '1'

export interface FakeDropboxOptions {
  /** The size of a block, where tests need it small. Default Dropbox's own, 4 MiB. */
  blockBytes?: number
  /** Files keep their size and hash, and not their bytes; they cannot be downloaded. */
  discard?: boolean
}

/** A request that was understood, in the order in which they came. */
export interface FakeCall {
  /** Such as `files/upload_session/append_v2`. */
  route: string
  arg: Record<string, unknown>
  bodyBytes: number
}

/**
 * Dropbox's API v2 as far as files go, and its token endpoint, on one origin. Written from the documentation
 * (https://www.dropbox.com/developers/documentation/http/documentation) and from files.stone and auth.stone of
 * https://github.com/dropbox/dropbox-api-spec. What is not documented and was not found is marked.
 */
export class FakeDropbox {
  readonly tokens = new FakeTokens([
    'account_info.read',
    'files.metadata.read',
    'files.content.read',
    'files.content.write',
  ])
  readonly sessions: FakeSessions
  readonly calls: FakeCall[] = []
  /** By id. `1` is the home of the account. */
  readonly namespaces = new Map<string, FakeTree>([[HOME, new FakeTree()]])
  /** The namespaces that the account may not use. */
  readonly forbidden = new Set<string>()
  /** Each further page of a listing begins with what changed since the one before, and repeats an entry. */
  repeatsEntries = false
  /** Told of each request before anything comes of it. */
  onCall: ((call: FakeCall) => void) | undefined
  origin = ''
  readonly #blockBytes: number
  readonly #discard: boolean
  readonly #armed: { route: string; act: 'refuse' | 'apply' | 'half' | 'expire'; refusal: Refusal; left: number }[] = []
  readonly #listings = new Map<string, { queue: string[]; limit: number; tree: FakeTree }>()
  #server: FakeServer | undefined
  #cursors = 0

  private constructor({ blockBytes = 4 * 1024 * 1024, discard = false }: FakeDropboxOptions) {
    this.#blockBytes = blockBytes
    this.#discard = discard
    this.sessions = new FakeSessions(blockBytes, !discard)
  }

  static async open(options: FakeDropboxOptions = {}): Promise<FakeDropbox> {
    const fake = new FakeDropbox(options)
    fake.#server = await serveFake((request, reply, url) => fake.#answer(request, reply, url))
    fake.origin = fake.#server.origin
    return fake
  }

  /** The settings that an adapter needs. */
  get credentials(): { clientId: string; clientSecret: string; refreshToken: string; endpoint: string } {
    const { clientId, clientSecret, refreshToken } = this.tokens
    return { clientId, clientSecret, refreshToken, endpoint: this.origin }
  }

  /** The account's own files. */
  get tree(): FakeTree {
    return this.namespaces.get(HOME)!
  }

  /** Refuses the next `times` requests of a route, once their bodies have come. */
  refuse(route: string, refusal: Refusal, times = 1): void {
    this.#armed.push({ route, act: 'refuse', refusal, left: times })
  }

  /** Forgets every refusal that is still to come. */
  disarm(): void {
    this.#armed.length = 0
  }

  limitRate(route: string, seconds: number, times = 1): void {
    this.refuse(route, rateLimit('too_many_requests', seconds), times)
  }

  /** Does what the next request of a route asks for, and answers 500 all the same. */
  applyAndFail(route: string, times = 1): void {
    this.#armed.push({ route, act: 'apply', refusal: internal(), left: times })
  }

  /** Takes half of the next append's body, and answers 500. */
  keepHalf(): void {
    const route = 'files/upload_session/append_v2'
    this.#armed.push({ route, act: 'half', refusal: internal(), left: 1 })
  }

  /** Lets all tokens expire while the next request's body of a route is on its way. */
  expireDuring(route: string): void {
    this.#armed.push({ route, act: 'expire', refusal: authError('expired_access_token'), left: 1 })
  }

  /** Gives up the cursors of all listings. */
  resetCursors(): void {
    this.#listings.clear()
  }

  callsOf(route: string): FakeCall[] {
    return this.calls.filter((call) => call.route === route)
  }

  async close(): Promise<void> {
    await this.#server?.close()
  }

  async #answer(request: IncomingMessage, reply: ServerResponse, url: URL): Promise<void> {
    if (url.pathname === '/oauth2/token') {
      sendJson(reply, 200, await this.tokens.answer(request, url))
      return
    }
    const name = url.pathname.replace(/^\/2\//, '')
    const route = this.#routes[name]
    if (!route || request.method !== 'POST') throw new Refusal(404, 'Not found')
    this.#authorize(request, name, route.scope)
    const tree = this.#treeOf(request, name)
    const body = await readBody(request)
    const arg = argOf(request, name, route, body)
    const content = route.style === 'upload' ? body : Buffer.alloc(0)
    const call = { route: name, arg, bodyBytes: content.length }
    this.calls.push(call)
    this.onCall?.(call)
    const armed = this.#armed.find((item) => item.route === name && item.left > 0)
    if (armed) armed.left--
    if (armed?.act === 'expire') this.tokens.expire()
    if (armed?.act === 'half') this.sessions.appendHalf(arg.cursor as Cursor, body)
    if (armed && armed.act !== 'apply') throw armed.refusal
    this.#checkContent(arg, content)
    const result = this.#handled(() => route.handle({ arg, body: content, tree, request, reply }))
    if (armed) throw armed.refusal
    if (result !== reply) sendJson(reply, 200, result)
  }

  #authorize(request: IncomingMessage, name: string, scope: string): void {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined) throw badInput(name, 'Must provide HTTP header "Authorization".')
    // It does quote it: https://github.com/Jesus/dropbox_api/issues/90
    if (!token.startsWith('sl.')) {
      throw badInput(name, `Invalid authorization value in HTTP header "Authorization": "Bearer ${token}".`)
    }
    const known = this.tokens.find(token)
    if (!known) throw authError('invalid_access_token')
    if (known.expiresAt <= Date.now()) throw authError('expired_access_token')
    if (!known.scopes.has(scope)) throw authError('missing_scope', { required_scope: scope })
  }

  /** https://www.dropbox.com/developers/reference/path-root-header-modes */
  #treeOf(request: IncomingMessage, name: string): FakeTree {
    const header = request.headers['dropbox-api-path-root']
    if (header === undefined) return this.tree
    const root = JSON.parse(String(header)) as { '.tag': string; root?: string; namespace_id?: string }
    if (root['.tag'] === 'home') return this.tree
    const id = root['.tag'] === 'root' ? root.root : root['.tag'] === 'namespace_id' ? root.namespace_id : undefined
    if (id === undefined) throw badInput(name, 'HTTP header "Dropbox-API-Path-Root": unknown mode')
    const isRoot = id === [...this.namespaces.keys()].at(-1)
    if (root['.tag'] === 'root' && !isRoot) {
      const current = { root_namespace_id: [...this.namespaces.keys()].at(-1), home_namespace_id: HOME }
      throw pathRootError('invalid_root', { invalid_root: { '.tag': 'team', ...current } })
    }
    const tree = this.namespaces.get(id)
    if (!tree || this.forbidden.has(id)) throw pathRootError('no_permission')
    return tree
  }

  #checkContent(arg: Arg, body: Buffer): void {
    if (body.length > REQUEST_MAX_BYTES) throw routeError(['payload_too_large'])
    if (arg.content_hash !== undefined && arg.content_hash !== this.#hash(body)) {
      throw routeError(['content_hash_mismatch'])
    }
  }

  #handled<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw error instanceof TreeError ? routeError(['path', ...error.tags]) : error
    }
  }

  #hash(body: Buffer): string {
    return new ContentHasher(this.#blockBytes).update(body).digest()
  }

  readonly #routes: Record<string, Route> = {
    'files/upload': {
      style: 'upload',
      scope: 'files.content.write',
      fields: [...COMMIT, 'content_hash'],
      handle: ({ arg, body, tree }) => {
        const bytes = this.#discard ? undefined : body
        try {
          return metadataOf(tree.write(commitOf(arg), { size: body.length, hash: this.#hash(body), bytes }), false)
        } catch (error) {
          throw error instanceof TreeError ? uploadError(error.tags) : error
        }
      },
    },
    'files/upload_session/start': {
      style: 'upload',
      scope: 'files.content.write',
      fields: ['close', 'session_type', 'content_hash'],
      handle: ({ arg, body }) => {
        const type = (arg.session_type as { '.tag': 'sequential' | 'concurrent' } | undefined)?.['.tag']
        return { session_id: this.sessions.start(type ?? 'sequential', arg.close === true, body) }
      },
    },
    'files/upload_session/append_v2': {
      style: 'upload',
      scope: 'files.content.write',
      fields: ['cursor', 'close', 'content_hash'],
      handle: ({ arg, body }) => {
        this.sessions.append(arg.cursor as Cursor, body, arg.close === true)
        return null
      },
    },
    'files/upload_session/finish': {
      style: 'upload',
      scope: 'files.content.write',
      fields: ['cursor', 'commit', 'content_hash'],
      handle: ({ arg, body, tree }) => {
        const cursor = arg.cursor as Cursor
        const content = this.sessions.content(cursor, body)
        const file = tree.write(commitOf(arg.commit as Arg), content)
        this.sessions.finish(cursor.session_id)
        return metadataOf(file, false)
      },
    },
    'files/download': {
      style: 'download',
      scope: 'files.content.read',
      fields: ['path', 'rev'],
      handle: ({ arg, tree, request, reply }) => download(request, reply, fileAt(tree, String(arg.path))),
    },
    'files/get_metadata': {
      style: 'rpc',
      scope: 'files.metadata.read',
      fields: ['path', 'include_media_info', 'include_deleted', 'include_has_explicit_shared_members'],
      handle: ({ arg, tree }) => {
        const there = tree.find(String(arg.path))
        if (!there) throw new TreeError('not_found')
        return metadataOf(there)
      },
    },
    'files/list_folder': {
      style: 'rpc',
      scope: 'files.metadata.read',
      fields: [
        'path',
        'recursive',
        'limit',
        'include_deleted',
        'include_mounted_folders',
        'include_non_downloadable_files',
      ],
      handle: ({ arg, tree }) => this.#list(tree, arg),
    },
    'files/list_folder/continue': {
      style: 'rpc',
      scope: 'files.metadata.read',
      fields: ['cursor'],
      handle: ({ arg }) => this.#page(String(arg.cursor)),
    },
    'files/delete_v2': {
      style: 'rpc',
      scope: 'files.content.write',
      fields: ['path', 'parent_rev'],
      handle: ({ arg, tree }) => {
        try {
          return { metadata: metadataOf(tree.delete(String(arg.path), arg.parent_rev as string | undefined)) }
        } catch (error) {
          if (!(error instanceof TreeError)) throw error
          throw routeError([error.tags[0] === 'not_found' ? 'path_lookup' : 'path_write', ...error.tags])
        }
      },
    },
  }

  #list(tree: FakeTree, arg: Arg): unknown {
    const path = String(arg.path)
    if (path === '/') throw badInput('files/list_folder', 'Specify the root folder as an empty string.')
    const limit = Number(arg.limit ?? 500)
    if (!(limit >= 1 && limit <= 2000)) throw badInput('files/list_folder', 'limit: out of range')
    const folder = path === '' ? undefined : tree.find(path)
    if (path !== '' && !folder) throw new TreeError('not_found')
    if (folder?.kind === 'file') throw new TreeError('not_folder')
    // Of a folder by path Dropbox also gives the folder itself.
    const entries = [...(folder ? [folder] : []), ...tree.beneath(path, arg.recursive === true)]
    const cursor = this.#cursor({ queue: entries.map(({ display }) => display), limit, tree })
    return this.#page(cursor)
  }

  #page(cursor: string): unknown {
    const listing = this.#listings.get(cursor)
    if (!listing) throw routeError(['reset'])
    const { queue, limit, tree } = listing
    const entries = queue.slice(0, limit).map((display) => {
      const there = tree.find(display)
      if (there) return metadataOf(there)
      return { '.tag': 'deleted', name: nameOf(display), path_lower: lower(display), path_display: display }
    })
    const rest = queue.slice(limit - (this.repeatsEntries && limit > 1 && queue.length > limit ? 1 : 0))
    return { entries, cursor: this.#cursor({ ...listing, queue: rest }), has_more: rest.length > 0 }
  }

  #cursor(listing: { queue: string[]; limit: number; tree: FakeTree }): string {
    const cursor = `AAE-fake-cursor-${++this.#cursors}`
    this.#listings.set(cursor, listing)
    return cursor
  }
}

function internal(): Refusal {
  return new Refusal(500, 'Internal Server Error')
}
