// The requests of examples/custom-adapter.ts.
import { quoteKey, StorageError, type StorageErrorCode, throwIfAborted } from '../adapters/index.ts'

export const ADAPTER = 'shelf'
/** A request whose answer has not begun by then is given up. Long enough for a part over a slow line. */
const ANSWER_MS = 120_000

const CODES: Record<number, StorageErrorCode> = {
  401: 'ACCESS_DENIED',
  403: 'ACCESS_DENIED',
  404: 'NOT_FOUND',
  412: 'CONFLICT',
  429: 'RATE_LIMITED',
  507: 'QUOTA',
}

export interface Sending {
  operation: string
  key?: string
  signal?: AbortSignal | undefined
  body?: Buffer | string
  headers?: Record<string, string>
  /** Statuses that are answers here, and no failures. */
  accept?: readonly number[]
}

/** Makes single requests, and turns whatever fails into a StorageError. */
export class ShelfClient {
  readonly #origin: string
  readonly #token: string

  constructor(origin: string, token: string) {
    this.#origin = origin
    this.#token = token
  }

  /** One attempt. @throws StorageError; AbortError when the signal fires. */
  async send(method: string, path: string, sending: Sending): Promise<Response> {
    const { signal, body, headers, accept = [] } = sending
    throwIfAborted(signal)
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), ANSWER_MS)
    try {
      const response = await fetch(this.#origin + path, {
        method,
        headers: { ...headers, 'accept-encoding': 'identity', authorization: `Bearer ${this.#token}` },
        // fetch copies a buffer before it sends it, so the ring of a MultipartWritable may be used again.
        ...(body === undefined ? {} : { body }),
        signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
      })
      if (response.ok) return response
      // A refusal's text may hold anything; its status says enough.
      await response.body?.cancel()
      if (accept.includes(response.status)) return response
      throw this.#refused(response, sending)
    } catch (error) {
      throwIfAborted(signal)
      if (error instanceof StorageError) throw error
      throw this.#error('UNAVAILABLE', `the connection to ${this.#origin} failed; try again later`, sending)
    } finally {
      clearTimeout(timer)
    }
  }

  #refused({ status, headers }: Response, sending: Sending): StorageError {
    const code = CODES[status] ?? (status >= 500 ? 'UNAVAILABLE' : 'INVALID')
    const seconds = Number(headers.get('retry-after') ?? Number.NaN)
    return this.#error(code, `the server answered ${status}`, sending, seconds >= 0 ? seconds * 1000 : undefined)
  }

  #error(code: StorageErrorCode, what: string, { operation, key }: Sending, retryAfterMs?: number): StorageError {
    const target = key === undefined ? '' : ` of ${quoteKey(key)}`
    const details = { code, adapter: ADAPTER, operation, ...(key === undefined ? {} : { key }) }
    const asked = retryAfterMs === undefined ? {} : { retryAfterMs }
    return new StorageError(`The ${operation}${target} failed: ${what}.`, { ...details, ...asked })
  }
}

/** What is gone already is what a clean-up wants. */
export async function absentIsFine<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (error instanceof StorageError && error.code === 'NOT_FOUND') return undefined
    throw error
  }
}
