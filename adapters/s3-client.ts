import { Readable } from 'node:stream'
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3'
import { StorageError } from './errors.ts'
import { boundedBody, type HttpResponse } from './http.ts'
import { normalizePrefix, prefixedKey } from './keys.ts'
import { abortError, CALL_RETRY, retry, throwIfAborted } from './retry.ts'
import { parseEndpoint, type S3Config } from './s3-config.ts'
import { ADAPTER, type S3Names, STRANGER, s3CodeOf, toStorageError } from './s3-errors.ts'
import { S3HttpHandler } from './s3-http.ts'
import { profileOf, S3_PROFILES, type S3Integrity, type S3Profile } from './s3-profiles.ts'

export type Sdk = typeof import('@aws-sdk/client-s3')

const CONNECT_MS = 5_000
const IDLE_MS = 30_000
/** Credentials may take longer than an answer: some programs ask a person for a touch or a code. */
const CREDENTIALS_FACTOR = 2

export interface S3CallOptions {
  signal?: AbortSignal | undefined
  key?: string | undefined
}

/** Sends one command with the SDK's client. */
export type Send<T> = (client: S3Client, options: { abortSignal?: AbortSignal }) => Promise<T>

/** One bucket of one store: the SDK's client, our names for what is in it, and errors that say which. */
export class S3Connection {
  readonly sdk: Sdk
  readonly config: S3Config
  readonly names: S3Names
  /** Ends in a slash, unless it is empty. */
  readonly prefix: string
  /** As set, or as the profile says, until `probe` has seen that the server does not check it. */
  integrity: S3Integrity
  readonly md5Etags: boolean
  readonly partsEtags: boolean
  readonly isAws: boolean
  /** As the profile says, until `probe` has seen what the server does. */
  abilities: Pick<S3Profile, 'conditionalPut' | 'conditionalComplete' | 'partNameBytes' | 'rules'>
  readonly #client: S3Client
  #wereGiven = false
  readonly #handler: S3HttpHandler

  constructor(sdk: Sdk, config: S3Config) {
    const { endpoint } = config
    const origin = endpoint === undefined ? undefined : parseEndpoint(endpoint)
    const profile = profileOf(origin, config.profile)
    const region = config.region ?? regionOf(profile, origin)
    this.sdk = sdk
    this.config = config
    this.names = { bucket: config.bucket, endpoint: origin?.origin ?? `AWS S3 ${region ?? ''}`.trimEnd() }
    this.prefix = normalizePrefix(config.prefix)
    this.isAws = profile.name === 'aws'
    const isUnsigned = config.signBodies === false && profile.integrity === 'sha256'
    this.integrity = config.integrity ?? (isUnsigned ? 'md5' : profile.integrity)
    this.md5Etags = config.md5Etags ?? profile.md5Etags
    this.partsEtags = config.md5Etags ?? profile.partsEtags
    this.abilities = profile
    this.#handler = new S3HttpHandler({ connectMs: CONNECT_MS, idleMs: config.idleMs ?? IDLE_MS })

    const options: S3ClientConfig = {
      // Retrying is done in one place, and that is not the SDK: it knows neither our deadlines nor our aborts.
      maxAttempts: 1,
      // Our own Content-MD5 or CRC32 goes with each body; B2 and R2 refuse the SDK's default checksums.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      expectContinueHeader: false,
      requestHandler: this.#handler as unknown as NonNullable<S3ClientConfig['requestHandler']>,
      forcePathStyle: config.forcePathStyle ?? profile.pathStyle,
    }
    if (origin) options.endpoint = origin.href
    if (region !== undefined) options.region = region
    const { accessKeyId, secretAccessKey, sessionToken } = config
    if (accessKeyId !== undefined && secretAccessKey !== undefined) {
      options.credentials = { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
    }
    this.#client = new sdk.S3Client(options)
    const signBodies = config.signBodies ?? (this.integrity === 'sha256' || origin?.protocol === 'http:')
    if (!signBodies) leaveBodiesUnsigned(this.#client)
    if (!profile.sdkQuery) leaveOutSdkQuery(this.#client)
    refuseStrangers(this.#client)
    boundAnswers(this.#client)
  }

  /** The full key, beneath the prefix. @throws StorageError INVALID */
  fullKey(key: string, operation: string): string {
    return prefixedKey(this.prefix, key, ADAPTER, operation)
  }

  /** The time by the server's clock, to the second, as its last answer says. */
  get serverNow(): number {
    return this.#handler.serverNow
  }

  /** For what takes the SDK's own client. */
  get client(): S3Client {
    return this.#client
  }

  /**
   * One attempt at one request; a second one where the store refuses the credentials and their provider has others: a
   * session that was ended before its time, or expired by the store's clock and not by ours.
   * @throws StorageError, AbortError
   */
  async once<T>(operation: string, send: Send<T>, options: S3CallOptions = {}): Promise<T> {
    const { signal, key } = options
    for (let isFresh = false; ; isFresh = true) {
      throwIfAborted(signal)
      let used: Identity | undefined
      try {
        used = await this.#credentials(signal)
        return await send(this.#client, signal ? { abortSignal: signal } : {})
      } catch (error) {
        const refused = toStorageError(error, operation, this.names, key)
        if (isFresh || !used || !mayBeStale(refused, used) || !(await this.#renewed(used, signal))) throw refused
      }
    }
  }

  /** @returns whether there are other credentials now than those that were refused. */
  async #renewed(used: Identity, signal: AbortSignal | undefined): Promise<boolean> {
    const isOther = (one: Identity | undefined) =>
      one?.accessKeyId !== used.accessKeyId || one?.sessionToken !== used.sessionToken
    try {
      // Another request may have renewed them meanwhile. Else the SDK asks once for all that ask at the same time.
      if (isOther(await this.#credentials(signal))) return true
      return isOther(await this.#credentials(signal, { forceRefresh: true }))
    } catch (error) {
      throwIfAborted(signal)
      // What may pass, as a service that did not answer, is to be tried again; of anything else the refusal says more.
      if (error instanceof StorageError) throw error
      return false
    }
  }

  /**
   * Waits for the credentials that the request is then signed with: the SDK waits for a program or a service that gives
   * them without a limit, and whatever the signal says.
   * @returns undefined where they are settings, of which there are no others.
   */
  #credentials(signal: AbortSignal | undefined, options?: { forceRefresh: true }): Promise<Identity | undefined> {
    const { accessKeyId, secretAccessKey, idleMs = IDLE_MS } = this.config
    if (accessKeyId !== undefined && secretAccessKey !== undefined) return Promise.resolve(undefined)
    const ms = CREDENTIALS_FACTOR * idleMs
    return new Promise((resolve, reject) => {
      const abort = () => reject(abortError(signal))
      const timer = setTimeout(() => {
        const message = `S3: what gives the credentials (a program, or a service) did not answer for ${Math.round(ms / 1000)} seconds; look at the profile that AWS_PROFILE names, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.`
        reject(new StorageError(message, { code: 'UNAVAILABLE', adapter: ADAPTER, operation: 'sign-in' }))
        // The SDK lets all further requests wait for the same answer: that makes it forget the question.
        this.#client.config.credentials = undefined as unknown as S3Client['config']['credentials']
      }, ms)
      signal?.addEventListener('abort', abort)
      const settled = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
      }
      const given = (identity: Identity) => {
        this.#wereGiven = true
        resolve(identity)
      }
      const failed = (error: unknown) => reject(this.#wereGiven ? this.#notRenewed(error) : error)
      this.#client.config.credentials(options).then(given, failed).finally(settled)
    })
  }

  /** What has given them before may do so again: for a part that is worth waiting for. */
  #notRenewed(error: unknown): StorageError {
    const told = toStorageError(error, 'sign-in', this.names)
    const message =
      'S3: the credentials could not be renewed: what gave them (a program, or a service) fails now; look at the profile that AWS_PROFILE names, or sign in again.'
    const cause = told instanceof StorageError ? told.cause : undefined
    return new StorageError(message, {
      code: 'AUTH_EXPIRED',
      adapter: ADAPTER,
      operation: 'sign-in',
      retryable: true,
      cause,
    })
  }

  /** As `once`, and again while the error is one that may pass. */
  call<T>(operation: string, send: Send<T>, options: S3CallOptions = {}): Promise<T> {
    const { callRetry = CALL_RETRY } = this.config
    return retry(() => this.once(operation, send, options), callRetry, { signal: options.signal })
  }

  /**
   * Deletes one version of an object, or the object as whoever reads it sees it. An absent one is success.
   * @returns the version of the marker that a bucket which keeps versions has put over them.
   */
  async delete(key: string, version: string | undefined, signal: AbortSignal | undefined): Promise<string | undefined> {
    const target = { Bucket: this.config.bucket, Key: this.fullKey(key, 'delete') }
    const command = { ...target, ...(version === undefined ? {} : { VersionId: version }) }
    try {
      const { DeleteMarker, VersionId } = await this.call(
        'delete',
        (client, options) => client.send(new this.sdk.DeleteObjectCommand(command), options),
        { signal, key },
      )
      return version === undefined && DeleteMarker ? VersionId : undefined
    } catch (error) {
      if (s3CodeOf(error) === 'NoSuchKey') return undefined
      throw error
    }
  }

  /** What is wrong with a listing that the store gave. */
  listFault(what: string): StorageError {
    const message = `The listing of the bucket "${this.config.bucket}" ${what}.`
    return new StorageError(message, { code: 'CORRUPT', adapter: ADAPTER, operation: 'list' })
  }

  close(): void {
    this.#client.destroy()
    this.#handler.destroy()
  }
}

interface Identity {
  accessKeyId: string
  sessionToken?: string | undefined
}

/** Whether a refusal may be of credentials that their provider has others for. */
function mayBeStale(error: unknown, { sessionToken }: Identity): boolean {
  if (!(error instanceof StorageError)) return false
  // A key that was rotated, and what MinIO says of a session that has expired.
  if (error.code === 'AUTH_EXPIRED' || s3CodeOf(error) === 'InvalidAccessKeyId') return true
  // To HEAD, S3 gives no code with it.
  const { status } = (error.cause ?? {}) as { status?: number }
  return sessionToken !== undefined && error.operation === 'stat' && status === 400
}

/** Saves a SHA-256 over every byte, where TLS and the part's own checksum guard them already. */
function leaveBodiesUnsigned(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => (args) => {
      const { request } = args as { request?: { headers: Record<string, string> } }
      const command = (context as { commandName?: string }).commandName
      if (request && (command === 'PutObjectCommand' || command === 'UploadPartCommand')) {
        request.headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD'
      }
      return next(args)
    },
    { step: 'build', name: 'millraceUnsignedBodies' },
  )
}

/** A region that the host or the provider fixes; else the environment's, before the one that most servers go by. */
function regionOf({ region }: S3Profile, origin: URL | undefined): string | undefined {
  const isFixed = origin === undefined || region !== S3_PROFILES.other.region
  return isFixed ? region : (process.env.AWS_REGION ?? region)
}

function leaveOutSdkQuery(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { request } = args as { request?: { query?: Record<string, unknown> } }
      if (request?.query) delete request.query['x-id']
      return next(args)
    },
    { step: 'build', name: 'millraceNoSdkQuery' },
  )
}

/** What every listing says of itself, by one or another of these, and every answer to HEAD or GET of its object. */
const OWN_FIELDS = {
  GetObjectCommand: ['ETag', 'LastModified', 'VersionId', 'ContentRange'],
  List: ['IsTruncated', 'Name', 'Bucket', 'KeyCount', 'MaxKeys', 'MaxUploads', 'MaxParts'],
  HeadObject: ['ETag', 'LastModified', 'VersionId'],
}

/**
 * What no S3 store has answered, as the sign-in page of a network or MinIO's console, or nothing at all with 200, is to
 * the SDK a listing of nothing, or an object of that page's size.
 */
function refuseStrangers(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args)
      const { commandName = '' } = context as { commandName?: string }
      const fields = Object.entries(OWN_FIELDS).find(([start]) => commandName.startsWith(start))?.[1]
      const output = result.output as object as Record<string, unknown>
      if (!fields || fields.some((name) => output[name] !== undefined)) return result
      const { $metadata, Body } = output
      if (Body instanceof Readable) Body.on('error', () => {}).destroy()
      throw Object.assign(new Error('no S3 store answers so'), { name: STRANGER, $metadata })
    },
    { step: 'initialize', name: 'millraceNoStrangers' },
  )
}

/** What is no object, the SDK holds whole: without an end to it, gigabytes. */
function boundAnswers(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args)
      const { commandName = '' } = context as { commandName?: string }
      const response = result.response as { statusCode: number } & Pick<HttpResponse, 'headers' | 'body'>
      // An answer to HEAD says the length of what it has not.
      const isObject = commandName === 'GetObjectCommand' && response.statusCode < 300
      if (!isObject && !commandName.startsWith('Head')) response.body = boundedBody(response)
      return result
    },
    // Before the SDK's own reads it.
    { step: 'deserialize', priority: 'low', name: 'millraceBoundAnswers' },
  )
}
