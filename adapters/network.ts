/** Node's codes of a connection that failed, or never came to be. */
const NETWORK = /^(E[A-Z]+|ERR_TLS_\w+|TimeoutError|\w*CERT\w*|\w*SELF_SIGNED\w*|HPE_\w+|ERR_SSL_\w+)$/
const UNTRUSTED = /CERT|SELF_SIGNED|^ERR_TLS|^ERR_SSL/

/** Whether an error's `code`, or its `name` where it has none, is one of the network's. */
export function isNetworkCode(code: string): boolean {
  return NETWORK.test(code)
}

/** Whether it is about a certificate, which no retry mends. */
export function isUntrusted(code: string): boolean {
  return UNTRUSTED.test(code)
}

/** What a network error means to the owner of the settings: a clause for a message, without credentials. */
export function networkAdvice(code: string, endpoint: string): string {
  if (UNTRUSTED.test(code)) return `the certificate of ${endpoint} is not trusted; see NODE_EXTRA_CA_CERTS`
  if (code === 'ECONNREFUSED') return `nothing answers at ${endpoint}; check the endpoint and that the store runs`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the host of ${endpoint} has no address; check the endpoint`
  return `the connection to ${endpoint} failed`
}

/** A Retry-After header, in seconds or as a date, in the shape that StorageError takes. */
export function retryAfter(value: string | undefined): { retryAfterMs?: number } {
  if (value === undefined) return {}
  const seconds = Number(value)
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) && ms >= 0 ? { retryAfterMs: ms } : {}
}
