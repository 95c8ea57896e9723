import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3'
import { StorageError } from './errors.ts'
import { checkKey, quoteKey } from './keys.ts'
import { CALL_RETRY, type RetryPolicy, retry, throwIfAborted } from './retry.ts'
import { ADAPTER, type S3Names, toStorageError } from './s3-errors.ts'
import { S3HttpHandler } from './s3-http.ts'
import { KEY_MAX_BYTES } from './storage.ts'

export type Sdk = typeof import('@aws-sdk/client-s3')

const CONNECT_MS = 5_000
const IDLE_MS = 30_000
const DEFAULT_REGION = 'us-east-1'

export interface S3Config {
  bucket: string
  /** All keys live beneath it, and are given without it. A slash at its end is implied. */
  prefix?: string
  /** Absent: the environment's AWS_REGION, and us-east-1 where an endpoint is given. */
  region?: string
  /** The URL of a store other than AWS. Path style is then the default. */
  endpoint?: string
  /** Both keys or neither. Neither: the SDK's own chain, which begins at the environment. */
  accessKeyId?: string
  secretAccessKey?: string
  sessionToken?: string
  forcePathStyle?: boolean
  /**
   * Whether the store honours `If-None-Match: *`. AWS, R2 and MinIO do; Ceph does for objects of one part, and for
   * larger ones this adapter looks before the commit, which leaves a moment open. Default true; false refuses ifAbsent.
   */
  conditionalWrites?: boolean
  /** What a part's bytes are checked by on arrival. Default crc32 on AWS, and md5 (Content-MD5) elsewhere. */
  integrity?: 'md5' | 'crc32'
  /** Whether ETags are MD5 digests, and compared. Default true where integrity is md5. */
  md5Etags?: boolean
  /** Whether a SHA-256 of each body is in its signature. Default: over http only; over https TLS and `integrity` do. */
  signBodies?: boolean
  /** Bytes of a part at least, from 5 MiB. Default 8 MiB. */
  partBytes?: number
  /** Keys in one page of a listing, up to 1,000. */
  pageSize?: number
  /** Time without a byte in either direction after which a request is given up. Default 30,000. */
  idleMs?: number
  /** Bounds the attempts at one call. */
  callRetry?: RetryPolicy
  /** Bounds the attempts at one part, at a commit, and at going on with a read. */
  partRetry?: RetryPolicy
}

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
  readonly integrity: 'md5' | 'crc32'
  readonly isAws: boolean
  readonly #client: S3Client
  readonly #handler: S3HttpHandler

  constructor(sdk: Sdk, config: S3Config) {
    const { endpoint, region } = config
    const origin = endpoint === undefined ? undefined : parseEndpoint(endpoint)
    const chosenRegion = region ?? (origin ? (process.env.AWS_REGION ?? DEFAULT_REGION) : undefined)
    this.sdk = sdk
    this.config = config
    this.names = { bucket: config.bucket, endpoint: origin?.origin ?? `AWS S3 ${chosenRegion ?? ''}`.trimEnd() }
    this.prefix = normalizePrefix(config.prefix)
    this.isAws = origin === undefined || /(^|\.)amazonaws\.com(\.cn)?$/.test(origin.hostname)
    this.integrity = config.integrity ?? (this.isAws ? 'crc32' : 'md5')
    this.#handler = new S3HttpHandler({ connectMs: CONNECT_MS, idleMs: config.idleMs ?? IDLE_MS })

    const options: S3ClientConfig = {
      // Retrying is done in one place, and that is not the SDK: it knows neither our deadlines nor our aborts.
      maxAttempts: 1,
      // Our own Content-MD5 or CRC32 goes with each body; B2 and R2 refuse the SDK's default checksums.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      expectContinueHeader: false,
      requestHandler: this.#handler as unknown as NonNullable<S3ClientConfig['requestHandler']>,
      forcePathStyle: config.forcePathStyle ?? origin !== undefined,
    }
    if (origin) options.endpoint = origin.href
    if (chosenRegion !== undefined) options.region = chosenRegion
    const { accessKeyId, secretAccessKey, sessionToken } = config
    if (accessKeyId !== undefined && secretAccessKey !== undefined) {
      options.credentials = { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) }
    }
    this.#client = new sdk.S3Client(options)
    const signBodies = config.signBodies ?? origin?.protocol === 'http:'
    if (!signBodies) leaveBodiesUnsigned(this.#client)
  }

  /** The full key, beneath the prefix. @throws StorageError INVALID */
  fullKey(key: string, operation: string): string {
    checkKey(key, ADAPTER, operation)
    const full = this.prefix + key
    if (Buffer.byteLength(full) <= KEY_MAX_BYTES) return full
    const message = `The key ${quoteKey(key)} and the prefix together are longer than ${KEY_MAX_BYTES} bytes.`
    throw new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation, key })
  }

  /** One attempt at one request. @throws StorageError, AbortError */
  async once<T>(operation: string, send: Send<T>, options: S3CallOptions = {}): Promise<T> {
    const { signal, key } = options
    throwIfAborted(signal)
    try {
      return await send(this.#client, signal ? { abortSignal: signal } : {})
    } catch (error) {
      throw toStorageError(error, operation, this.names, key)
    }
  }

  /** As `once`, and again while the error is one that may pass. */
  call<T>(operation: string, send: Send<T>, options: S3CallOptions = {}): Promise<T> {
    const { callRetry = CALL_RETRY } = this.config
    return retry(() => this.once(operation, send, options), callRetry, { signal: options.signal })
  }

  close(): void {
    this.#client.destroy()
    this.#handler.destroy()
  }
}

/** @throws StorageError INVALID when a setting cannot be meant so. Repeats no secret. */
export function checkConfig(config: S3Config): void {
  const { bucket, accessKeyId, secretAccessKey, sessionToken } = config
  if (typeof bucket !== 'string' || bucket === '') throw invalid('openS3 needs the name of a bucket.')
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) {
    throw invalid('accessKeyId and secretAccessKey go together: pass both, or neither.')
  }
  if (sessionToken !== undefined && accessKeyId === undefined) {
    throw invalid('sessionToken needs accessKeyId and secretAccessKey beside it.')
  }
  if (config.endpoint !== undefined) parseEndpoint(config.endpoint)
  const prefix = normalizePrefix(config.prefix)
  if (prefix !== '') checkKey(prefix.slice(0, -1), ADAPTER, 'open')
}

function parseEndpoint(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw invalid('The endpoint must be a URL that begins with https:// or http://.')
  }
  if (url.username !== '' || url.password !== '') {
    throw invalid('The endpoint has credentials in it; pass accessKeyId and secretAccessKey instead.')
  }
  return url
}

function normalizePrefix(prefix = ''): string {
  const inner = prefix.replace(/^\/+|\/+$/g, '')
  return inner === '' ? '' : `${inner}/`
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
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
