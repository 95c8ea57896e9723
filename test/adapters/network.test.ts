import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { toStorageError as ofB2 } from '../../adapters/backblaze-b2-errors.ts'
import { toStorageError as ofDropbox } from '../../adapters/dropbox-errors.ts'
import { StorageError } from '../../adapters/errors.ts'
import { toStorageError as ofDrive } from '../../adapters/google-drive-errors.ts'
import { HttpClient } from '../../adapters/http.ts'
import { DROPBOX_OAUTH, RefreshedToken } from '../../adapters/oauth.ts'
import { toStorageError as ofS3 } from '../../adapters/s3-errors.ts'

const ENDPOINT = 'https://store.example'

const ADAPTERS: Record<string, (error: Error) => unknown> = {
  s3: (error) => ofS3(error, 'putPart', { bucket: 'worlds', endpoint: ENDPOINT }, 'a/key'),
  b2: (error) => ofB2(error, 'putPart', { bucket: 'worlds', endpoint: ENDPOINT, capabilities: undefined }, 'a/key'),
  dropbox: (error) => ofDropbox(error, 'putPart', ENDPOINT, 'a/key'),
  drive: (error) => ofDrive(error, 'putPart', 'a/key'),
}

/** As Node makes it. */
function failed(code: string): Error {
  return Object.assign(new Error(`what OpenSSL says of ${code}`), { code })
}

function each(code: string, check: (error: StorageError, adapter: string) => void): void {
  for (const [adapter, mapped] of Object.entries(ADAPTERS)) {
    const error = mapped(failed(code))
    assert.ok(error instanceof StorageError, `${adapter}: ${code} has no code of ours`)
    assert.equal(error.code, 'UNAVAILABLE', `${adapter}: ${code}`)
    check(error, adapter)
  }
}

describe('network faults', () => {
  it('a name that could not be looked up for now, and a record damaged on its way, are tried again', () => {
    const passing = [
      'EAI_AGAIN',
      'EAI_FAIL',
      'ECONNRESET',
      'EPROTO',
      'ERR_SSL_SSL/TLS_ALERT_BAD_RECORD_MAC',
      'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC',
      'ERR_TLS_HANDSHAKE_TIMEOUT',
      'ERR_SOCKET_CONNECTION_TIMEOUT',
    ]
    for (const code of passing) {
      each(code, (error, adapter) => {
        assert.equal(error.retryable, true, `${adapter}: ${code}`)
        assert.doesNotMatch(error.message, /certificate/, `${adapter}: ${code}`)
        assert.ok(error.message.includes(code))
      })
    }
  })

  it('what is wrong with a certificate is told, and not tried again', () => {
    const advice: Record<string, RegExp> = {
      DEPTH_ZERO_SELF_SIGNED_CERT: /is not trusted; see NODE_EXTRA_CA_CERTS/,
      UNABLE_TO_VERIFY_LEAF_SIGNATURE: /is not trusted; see NODE_EXTRA_CA_CERTS/,
      UNABLE_TO_GET_ISSUER_CERT_LOCALLY: /is not trusted; see NODE_EXTRA_CA_CERTS/,
      INVALID_CA: /is not trusted; see NODE_EXTRA_CA_CERTS/,
      CERT_HAS_EXPIRED: /is out of date; .*clock/,
      CERT_NOT_YET_VALID: /is out of date; .*clock/,
      ERR_TLS_CERT_ALTNAME_INVALID: /is for another host; check the endpoint/,
    }
    for (const [code, expected] of Object.entries(advice)) {
      each(code, (error, adapter) => {
        assert.equal(error.retryable, false, `${adapter}: ${code}`)
        assert.match(error.message, expected, `${adapter}: ${code}`)
      })
    }
  })

  it('a fault of the program is none of the network', () => {
    const error = new TypeError('of a bug')
    for (const mapped of Object.values(ADAPTERS)) assert.equal(mapped(error), error)
  })

  it('a token whose server could not be looked up is asked for again', async () => {
    class Unfound extends HttpClient {
      override async request(): Promise<never> {
        throw failed('EAI_AGAIN')
      }
    }
    const http = new Unfound({ connectMs: 1000, idleMs: 1000 })
    const token = new RefreshedToken({ provider: DROPBOX_OAUTH, clientId: 'app', http }, 'refresh')
    await assert.rejects(token.get(), (error) => error instanceof StorageError && error.retryable)
    http.destroy()
  })
})
