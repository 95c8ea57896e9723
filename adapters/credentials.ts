import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { StorageError } from './errors.ts'

/** What signs in to a provider of OAuth2 without a browser. */
export interface OAuthCredentials {
  clientId: string
  /** Absent for an app that signs in by PKCE alone. */
  clientSecret?: string
  refreshToken: string
}

export type OAuthStore = 'google-drive' | 'dropbox'

const VARIABLES: Record<OAuthStore, string> = { 'google-drive': 'MILLRACE_GOOGLE', dropbox: 'MILLRACE_DROPBOX' }

/** What is known of an app before anybody has signed in with it. */
export function appFromEnvironment(store: OAuthStore): { clientId?: string; clientSecret?: string } {
  const clientId = process.env[`${VARIABLES[store]}_CLIENT_ID`]
  const clientSecret = process.env[`${VARIABLES[store]}_CLIENT_SECRET`]
  return { ...(clientId ? { clientId } : {}), ...(clientSecret ? { clientSecret } : {}) }
}

/** The file that `millrace login` writes: in `$XDG_CONFIG_HOME/millrace`, or `~/.config/millrace`. */
export function credentialsFile(store: OAuthStore): string {
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'millrace', `${store}.json`)
}

/**
 * Finds what to sign in with: the environment (`MILLRACE_GOOGLE_…` or `MILLRACE_DROPBOX_CLIENT_ID`, `_CLIENT_SECRET`,
 * `_REFRESH_TOKEN`), else the file that `millrace login` wrote.
 * @throws StorageError INVALID when there is neither, or the file cannot be used.
 */
export function findOAuthCredentials(store: OAuthStore): OAuthCredentials {
  const refreshToken = process.env[`${VARIABLES[store]}_REFRESH_TOKEN`]
  const { clientId, clientSecret } = appFromEnvironment(store)
  if (refreshToken) {
    if (!clientId)
      throw invalid(store, `${VARIABLES[store]}_REFRESH_TOKEN needs ${VARIABLES[store]}_CLIENT_ID beside it.`)
    return { clientId, refreshToken, ...(clientSecret ? { clientSecret } : {}) }
  }
  const file = credentialsFile(store)
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOENT') throw invalid(store, `The credentials in ${file} cannot be read (${code}).`)
    throw invalid(
      store,
      `Nobody has signed in: run "millrace login ${store}", or set ${VARIABLES[store]}_CLIENT_ID, _CLIENT_SECRET and _REFRESH_TOKEN.`,
    )
  }
  return parseCredentials(store, file, text)
}

/** Writes credentials where `findOAuthCredentials` finds them, for the owner's eyes only, and all at once. */
export async function saveOAuthCredentials(file: string, credentials: OAuthCredentials): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  const temporary = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(`${JSON.stringify(credentials, null, 2)}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

function parseCredentials(store: OAuthStore, file: string, text: string): OAuthCredentials {
  let found: Record<string, unknown> = {}
  try {
    found = Object(JSON.parse(text))
  } catch {}
  const { clientId, clientSecret, refreshToken } = found
  if (
    typeof clientId !== 'string' ||
    typeof refreshToken !== 'string' ||
    !['string', 'undefined'].includes(typeof clientSecret)
  ) {
    throw invalid(store, `${file} holds no credentials: sign in again with "millrace login ${store}".`)
  }
  return { clientId, refreshToken, ...(clientSecret === undefined ? {} : { clientSecret: clientSecret as string }) }
}

function invalid(adapter: OAuthStore, message: string): StorageError {
  return new StorageError(message, { code: 'INVALID', adapter, operation: 'open' })
}
