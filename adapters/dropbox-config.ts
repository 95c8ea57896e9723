import { ADAPTER } from './dropbox-paths.ts'
import { StorageError } from './errors.ts'
import type { RetryPolicy } from './retry.ts'

/** Settings of a folder in Dropbox; see docs/providers/dropbox.md. */
export interface DropboxConfig {
  /** The app's key, from the App Console. Needed with `refreshToken`. */
  clientId?: string
  /** The app's secret; an app that signs in by PKCE has none. */
  clientSecret?: string
  /** From signing in with offline access; `millrace login dropbox` gets one. */
  refreshToken?: string
  /** In place of a refresh token: for trying, as it lasts four hours. */
  accessToken?: string
  /**
   * The folder, such as `/backups`, that all keys live beneath, and are given without. Default: the top of what the app
   * sees, which for an app with folder access is its own folder. The first write makes it.
   */
  root?: string
  /** A namespace that paths are relative to: a team folder, or a team's space. Default: the account's home folder. */
  namespace?: string
  /**
   * The same, where it has to be the root of the account: should it become a member of another team, every request is
   * refused, where it would go to another place otherwise.
   */
  rootNamespace?: string
  /**
   * How parts are sent. `concurrent` (the default): several at a time, each at its own offset, so that one connection
   * that is slow or drops holds up no other, and a part whose answer was lost is simply sent again. `sequential`: one at a
   * time, each behind the last, which asks less of a narrow line and of a busy account.
   */
  session?: 'concurrent' | 'sequential'
  /** Bytes of a part at least, up to 150 MiB; rounded up to 4 MiB. Default 8 MiB. */
  partBytes?: number
  /** Entries in one page of a listing, up to 2,000. Default: Dropbox's own. */
  pageSize?: number
  /** Time without a byte in either direction after which a request is given up. Default 60,000. */
  idleMs?: number
  /** Bounds the attempts at one call. */
  callRetry?: RetryPolicy
  /** Bounds the attempts at one part, at a commit, and at going on with a read. */
  partRetry?: RetryPolicy
  /** A URL that takes the place of all of Dropbox's hosts: of a proxy, or of a server for tests. */
  endpoint?: string
  /** For tests, with a server that does the same: the size of a block, of which parts are multiples. */
  blockBytes?: number
}

/** @throws StorageError INVALID when a setting cannot be meant so. Repeats no secret. */
export function checkConfig(config: DropboxConfig): void {
  const { clientId, clientSecret, refreshToken, accessToken, namespace, rootNamespace } = config
  const isGiven = (value: string | undefined) => typeof value === 'string' && value !== ''
  if (isGiven(refreshToken) === isGiven(accessToken)) {
    throw invalid('openDropbox needs either a refreshToken, which lasts, or an accessToken, for trying.')
  }
  if (isGiven(refreshToken) && !isGiven(clientId))
    throw invalid('A refreshToken needs the clientId of its app beside it.')
  if (clientSecret !== undefined && !isGiven(clientSecret)) throw invalid('clientSecret is empty; leave it out.')
  // It goes into a header, and a line break in it would begin another.
  if (isGiven(accessToken) && /[^\x21-\x7e]/.test(accessToken!))
    throw invalid('The accessToken has characters of no token.')
  if (namespace !== undefined && rootNamespace !== undefined)
    throw invalid('namespace and rootNamespace exclude each other.')
  for (const id of [namespace, rootNamespace]) {
    if (id !== undefined && !/^\d+$/.test(id)) throw invalid('The id of a namespace is a number.')
  }
  if (config.session !== undefined && !['concurrent', 'sequential'].includes(config.session)) {
    throw invalid('session is one of concurrent, sequential.')
  }
  if (config.endpoint !== undefined) parseEndpoint(config.endpoint)
}

/** @throws StorageError INVALID */
export function parseEndpoint(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw invalid('The endpoint must be a URL that begins with https:// or http://, without credentials.')
  }
  return url
}

function invalid(message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter: ADAPTER, operation: 'open' })
}
