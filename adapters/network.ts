/**
 * Node's codes of a connection that failed, or never came to be. OpenSSL's have a slash: a record that was damaged on its
 * way is ERR_SSL_SSL/TLS_ALERT_BAD_RECORD_MAC.
 */
const NETWORK = /^(E[A-Z]+|EAI_[A-Z]+|ERR_TLS_\w+|ERR_SSL_[\w/]+|ERR_SOCKET_CONNECTION_TIMEOUT|TimeoutError|HPE_\w+)$/
/** What OpenSSL says of a certificate: https://docs.openssl.org/3.5/man1/openssl-verification-options/. */
const UNTRUSTED =
  /^[\w/]*(CERT|SELF_SIGNED)[\w/]*$|^(UNABLE_TO|CRL)_\w+$|^(INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED|HOSTNAME_MISMATCH)$/

/** Whether an error's `code`, or its `name` where it has none, is one of the network's. */
export function isNetworkCode(code: string): boolean {
  return NETWORK.test(code) || UNTRUSTED.test(code)
}

/** Whether it is about a certificate, which no retry mends. */
export function isUntrusted(code: string): boolean {
  return UNTRUSTED.test(code)
}

/** What is wrong with a certificate, to be said after its name. */
export function certificateFault(code: string): string {
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') {
    return "is out of date; renew it, unless it is this machine's clock that is wrong"
  }
  if (/ALTNAME|^HOSTNAME/.test(code)) return 'is for another host; check the endpoint'
  return 'is not trusted; see NODE_EXTRA_CA_CERTS'
}

/** What a network error means to the owner of the settings: a clause for a message, without credentials. */
export function networkAdvice(code: string, endpoint: string): string {
  if (UNTRUSTED.test(code)) return `the certificate of ${endpoint} ${certificateFault(code)}`
  if (code === 'ECONNREFUSED') return `nothing answers at ${endpoint}; check the endpoint and that the store runs`
  if (code === 'EAI_AGAIN')
    return `the host of ${endpoint} could not be looked up; check the network and its name servers`
  if (code === 'ENOTFOUND') return `the host of ${endpoint} has no address; check the endpoint`
  return `the connection to ${endpoint} failed`
}

/** A Retry-After header, in seconds or as a date, in the shape that StorageError takes. */
export function retryAfter(value: string | undefined): { retryAfterMs?: number } {
  if (value === undefined) return {}
  const seconds = Number(value)
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) && ms >= 0 ? { retryAfterMs: ms } : {}
}
