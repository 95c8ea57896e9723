import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { apiCalls, type Call } from './b2-calls.ts'
import { B2Store, type FakeFile, type FakeKey, refusal } from './b2-store.ts'
import { decode, infoOf, receive, sendFile } from './b2-transfers.ts'
import { type FakeServer, type Refusal, readBody, sendJson, serveFake } from './http.ts'

const PART_NUMBER_MAX = 10_000
const JSON_MAX_BYTES = 4 * 1024 * 1024

export interface FakeB2Options {
  /** The least size of a part that is not the last. B2's is 5,000,000. */
  minPartBytes?: number
  /** Whether bytes are checked and hashed, and then forgotten; such files read as zeros. */
  discard?: boolean
  /** How long an upload that has come is not answered: the way there and back. */
  answerMs?: number
  /** Requests after which an account token has expired, as it does after 24 hours. Default: none. */
  tokenRequests?: number
}

type Body = Record<string, unknown>

interface UploadUrl {
  key: FakeKey
  kind: 'b2_upload_file' | 'b2_upload_part'
  /** The bucket's id, or the large file's. */
  target: string
  token: string
  isBusy: boolean
  isExpired: boolean
}

/** One request as the fake answered it. */
export interface SeenCall {
  /** Such as `b2_upload_part`; `download` of every download. */
  name: string
  status: number
}

interface Armed {
  name: string
  refusal: Refusal
  /** Of an upload: refused once so many bytes of its body have come. */
  afterBytes: number | undefined
  left: number
}

/**
 * A Backblaze B2 on loopback: its native API in versions 1 to 4 as https://www.backblaze.com/apidocs describes it, for
 * one account. It refuses what B2 refuses, with B2's codes.
 */
export class FakeB2 {
  readonly store = new B2Store()
  readonly calls: SeenCall[] = []
  /** Awaited before a call of the API is done, with what it asks: it may never end. */
  beforeCall: ((name: string, body: Record<string, unknown>) => Promise<void> | undefined) | undefined
  readonly #options: FakeB2Options
  readonly #tokens = new Map<string, { key: FakeKey; isExpired: boolean; requests: number }>()
  readonly #urls = new Map<string, UploadUrl>()
  readonly #armed: Armed[] = []
  readonly #apiCalls: Record<string, Call>
  #server: FakeServer | undefined

  constructor(options: FakeB2Options = {}) {
    this.#options = options
    const { store } = this
    const giveUrl = this.#giveUrl.bind(this)
    this.#apiCalls = apiCalls({ store, minPartBytes: this.#minPartBytes, giveUrl })
  }

  async start(): Promise<this> {
    this.#server = await serveFake((request, reply, url) => this.#handle(request, reply, url))
    return this
  }

  /** `http://127.0.0.1:PORT` */
  get origin(): string {
    if (!this.#server) throw new Error('the fake was not started')
    return this.#server.origin
  }

  async close(): Promise<void> {
    await this.#server?.close()
  }

  /** Large files that were begun and neither finished nor cancelled. */
  get unfinished(): FakeFile[] {
    return [...this.store.files.values()].filter((file) => file.action === 'start')
  }

  /** Answers the next calls of a name with an error; TOKEN in its message stands for the request's own token. */
  refuse(
    name: string,
    refused: Refusal,
    { times = 1, afterBytes }: { times?: number; afterBytes?: number } = {},
  ): void {
    this.#armed.push({ name, refusal: refused, left: times, afterBytes })
  }

  /** Forgets what `refuse` was told. */
  refuseNothing(): void {
    this.#armed.length = 0
  }

  count(name: string, status?: number): number {
    return this.calls.filter((call) => call.name === name && (status === undefined || call.status === status)).length
  }

  /** The 24 hours of every account token are over. */
  expireTokens(): void {
    for (const token of this.#tokens.values()) token.isExpired = true
  }

  /** The 24 hours of every upload URL are over. */
  expireUploadUrls(): void {
    for (const url of this.#urls.values()) url.isExpired = true
  }

  /** The key is deleted in the web console, and its tokens with it. */
  revokeKey(keyId: string): void {
    this.store.keys.delete(keyId)
    for (const [token, { key }] of this.#tokens) if (key.keyId === keyId) this.#tokens.delete(token)
  }

  /** A lifecycle rule, or somebody, cancels every large file that is not finished. */
  cancelUnfinished(): void {
    for (const { fileId } of this.unfinished) this.store.files.delete(fileId)
  }

  async #handle(request: IncomingMessage, reply: ServerResponse, url: URL): Promise<void> {
    const [, area = '', version = '', name = '', ...rest] = url.pathname.split('/')
    const seen = { name: area === 'file' || name === 'b2_download_file_by_id' ? 'download' : name, status: 0 }
    reply.on('close', () => {
      seen.status = reply.statusCode
      this.calls.push(seen)
    })
    if (area === 'file') return this.#download(request, reply, seen.name, url)
    const number = Number(/^v([1-4])$/.exec(version)?.[1])
    if (area !== 'b2api' || !number) throw refusal(404, 'not_found', `unknown path: ${url.pathname}`)
    if (name === 'b2_download_file_by_id') return this.#download(request, reply, seen.name, url)
    if (name === 'b2_upload_file' || name === 'b2_upload_part') return this.#upload(request, reply, name, rest)
    if (name === 'b2_authorize_account') {
      this.#refuseArmed(name, request)
      return sendJson(reply, 200, this.#authorize(request, number, url.origin))
    }
    const call = this.#apiCalls[name]
    if (!call) throw refusal(404, 'not_found', `unknown call: ${name}`)
    const body = await jsonOf(request, call.fields)
    this.#refuseArmed(name, request)
    const key = this.#keyOf(request, call.capability)
    this.#checkLimits(key, body, name)
    await this.beforeCall?.(name, body)
    const answer = call.work(body, key, `${url.origin}/b2api/${version}`)
    sendJson(reply, 200, number === 1 ? asVersion1(answer) : answer)
  }

  /** The answers differ by version: https://www.backblaze.com/apidocs/b2-authorize-account */
  #authorize(request: IncomingMessage, version: number, origin: string): Body {
    const [, basic = ''] = /^Basic (\S+)$/.exec(request.headers.authorization ?? '') ?? []
    const [keyId = '', applicationKey = ''] = Buffer.from(basic, 'base64').toString().split(':')
    const key = this.store.keys.get(keyId)
    if (key?.applicationKey !== applicationKey) throw refusal(401, 'unauthorized', 'invalid application key')
    const { bucketIds, capabilities, namePrefix } = key
    if (bucketIds && bucketIds.length > 1 && version < 4) {
      throw refusal(401, 'unsupported', 'Multi-Bucket application keys can only be used with v4 or later')
    }
    const authorizationToken = `4_${keyId}_${randomBytes(24).toString('base64url')}_acct`
    this.#tokens.set(authorizationToken, { key, isExpired: false, requests: 0 })
    const bucketId = bucketIds?.[0] ?? null
    const nameOf = (id: string) => this.store.buckets.find((one) => one.bucketId === id)?.bucketName ?? null
    const bucketName = bucketId && nameOf(bucketId)
    const urls = { apiUrl: origin, downloadUrl: origin, ...(version === 1 ? {} : { s3ApiUrl: origin }) }
    const sizes = { recommendedPartSize: 100_000_000, absoluteMinimumPartSize: this.#minPartBytes }
    const account = { accountId: this.store.accountId, authorizationToken }
    const single = { bucketId, ...(version === 1 ? {} : { bucketName }), capabilities, namePrefix }
    if (version <= 2) return { ...account, ...urls, ...sizes, allowed: single }
    const buckets = bucketIds?.map((id) => ({ id, name: nameOf(id) })) ?? null
    const rights = version === 3 ? single : { allowed: { buckets, capabilities, namePrefix } }
    const storageApi = { infoType: 'storageApi', ...urls, ...sizes, ...rights }
    return { ...account, applicationKeyExpirationTimestamp: null, apiInfo: { storageApi } }
  }

  get #minPartBytes(): number {
    return this.#options.minPartBytes ?? 5_000_000
  }

  #giveUrl(key: FakeKey, kind: UploadUrl['kind'], target: string, base: string): Body {
    const id = randomBytes(12).toString('hex')
    const token = `4_${key.keyId}_${randomBytes(24).toString('base64url')}_upld`
    this.#urls.set(id, { key, kind, target, token, isBusy: false, isExpired: false })
    return { uploadUrl: `${base}/${kind}/${target}/${id}`, authorizationToken: token }
  }

  async #upload(
    request: IncomingMessage,
    reply: ServerResponse,
    name: UploadUrl['kind'],
    [target = '', id = '']: string[],
  ): Promise<void> {
    const url = this.#urls.get(id)
    if (url?.kind !== name || url.target !== target || request.headers.authorization !== url.token) {
      throw refusal(401, 'bad_auth_token', 'Invalid authorization token')
    }
    if (url.isExpired) throw refusal(401, 'expired_auth_token', 'Authorization token has expired')
    if (url.isBusy) throw refusal(400, 'auth_token_limit', `More than one upload using auth token ${url.token}`)
    const armed = this.#takeArmed(name, request)
    if (armed && armed.afterBytes === undefined) throw armed.refusal
    url.isBusy = true
    try {
      const part = await receive(request, !this.#options.discard, (bytes) => {
        if (armed && bytes >= (armed.afterBytes ?? 0)) throw armed.refusal
      })
      const answer =
        name === 'b2_upload_file' ? this.#storeFile(request, url, part) : this.#storePart(request, url, part)
      if (this.#options.answerMs) await delay(this.#options.answerMs)
      sendJson(reply, 200, answer)
    } finally {
      url.isBusy = false
    }
  }

  #storeFile(request: IncomingMessage, url: UploadUrl, part: Awaited<ReturnType<typeof receive>>): Body {
    const name = decode(String(request.headers['x-bz-file-name'] ?? ''))
    if (!name.startsWith(url.key.namePrefix ?? '')) throw refusal(401, 'unauthorized')
    const contentType = request.headers['content-type']
    if (contentType === undefined) throw refusal(400, 'bad_request', 'Missing header: Content-Type')
    const facts = { bucketId: url.target, name, contentType, size: part.size, sha1: part.sha1 }
    const parts = new Map([[1, part]])
    return this.store.describe(this.store.add({ ...facts, action: 'upload', parts, fileInfo: infoOf(request) }))
  }

  #storePart(request: IncomingMessage, url: UploadUrl, part: Awaited<ReturnType<typeof receive>>): Body {
    const partNumber = Number(request.headers['x-bz-part-number'])
    if (!Number.isInteger(partNumber) || partNumber < 1 || partNumber > PART_NUMBER_MAX) {
      throw refusal(400, 'bad_request', `Bad part number: ${request.headers['x-bz-part-number']}`)
    }
    if (part.size === 0) throw refusal(400, 'bad_request', 'Part is empty')
    const file = this.store.unfinished(url.target)
    file.parts.set(partNumber, part)
    const uploadTimestamp = Date.now()
    return { fileId: file.fileId, partNumber, contentLength: part.size, contentSha1: part.sha1, uploadTimestamp }
  }

  async #download(request: IncomingMessage, reply: ServerResponse, name: string, url: URL): Promise<void> {
    this.#refuseArmed(name, request)
    const key = this.#keyOf(request, 'readFiles')
    const [, area, bucketName, ...segments] = url.pathname.split('/')
    let file: FakeFile | undefined
    if (area === 'file') {
      const bucket = this.store.buckets.find((one) => one.bucketName === bucketName)
      file = bucket && this.store.live(bucket.bucketId, decode(segments.join('/')))
    } else {
      file = this.store.file(url.searchParams.get('fileId'))
    }
    if (file?.action !== 'upload') throw refusal(404, 'not_found', 'File is not present')
    this.#checkLimits(key, { bucketId: file.bucketId, fileName: file.name }, name)
    await sendFile(request, reply, file)
  }

  #keyOf(request: IncomingMessage, capability: string): FakeKey {
    const token = this.#tokens.get(request.headers.authorization ?? '')
    if (!token) throw refusal(401, 'bad_auth_token', 'Invalid authorization token')
    if (token.requests++ >= (this.#options.tokenRequests ?? Infinity)) token.isExpired = true
    if (token.isExpired) throw refusal(401, 'expired_auth_token', 'Authorization token has expired')
    if (!token.key.capabilities.includes(capability)) throw refusal(401, 'unauthorized')
    return token.key
  }

  /** https://www.backblaze.com/docs/cloud-storage-application-keys: what a restricted key may not ask for. */
  #checkLimits({ bucketIds, namePrefix }: FakeKey, body: Body, name: string): void {
    const file = typeof body.fileId === 'string' ? this.store.files.get(body.fileId) : undefined
    const bucketId = body.bucketId ?? file?.bucketId
    if (bucketIds && bucketId !== undefined && !bucketIds.includes(String(bucketId))) throw refusal(401, 'unauthorized')
    if (namePrefix === null) return
    const isList = name.startsWith('b2_list_file') || name === 'b2_list_unfinished_large_files'
    const asked = isList ? (body.prefix ?? body.namePrefix ?? '') : (body.fileName ?? file?.name)
    if (asked !== undefined && !String(asked).startsWith(namePrefix)) throw refusal(401, 'unauthorized')
  }

  #takeArmed(name: string, { headers }: IncomingMessage): Armed | undefined {
    const armed = this.#armed.find((one) => one.left > 0 && one.name === name)
    if (!armed) return undefined
    armed.left--
    const { status, body, headers: own } = armed.refusal
    const { code, message } = body as { code: string; message: string }
    return { ...armed, refusal: refusal(status, code, message.replace('TOKEN', headers.authorization ?? ''), own) }
  }

  #refuseArmed(name: string, request: IncomingMessage): void {
    const armed = this.#takeArmed(name, request)
    if (armed) throw armed.refusal
  }
}

/** Listings said `size` before version 2: https://www.backblaze.com/docs/cloud-storage-native-api-versions */
function asVersion1(answer: Body): Body {
  if (!Array.isArray(answer.files)) return answer
  const files = answer.files.map(({ contentLength, ...file }: Body) => ({ ...file, size: contentLength }))
  return { ...answer, files }
}

/** @throws Refusal 400 for what is no JSON object, lacks a field or has one that the call does not know. */
async function jsonOf(request: IncomingMessage, fields: string[]): Promise<Body> {
  if (request.method !== 'POST') throw refusal(405, 'method_not_allowed', 'only POST is supported')
  const text = (await readBody(request, JSON_MAX_BYTES)).toString()
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    throw refusal(400, 'bad_json', 'the body is not JSON')
  }
  if (typeof body !== 'object' || body === null) throw refusal(400, 'bad_json', 'the body is not an object')
  const known = fields.map((field) => field.replace('?', ''))
  for (const field of Object.keys(body)) {
    if (!known.includes(field)) throw refusal(400, 'bad_request', `unknown field: ${field}`)
  }
  for (const field of fields) {
    if (!field.endsWith('?') && !(field in body))
      throw refusal(400, 'bad_request', `required field ${field} is missing`)
  }
  return body as Body
}
