import { createInterface } from 'node:readline/promises'
import {
  appFromEnvironment,
  credentialsFile,
  type OAuthCredentials,
  type OAuthStore,
  saveOAuthCredentials,
} from '../../../adapters/credentials.ts'
import { HttpClient } from '../../../adapters/http.ts'
import { DROPBOX_OAUTH, GOOGLE_OAUTH, type OAuthProvider, type TokenAnswer } from '../../../adapters/oauth.ts'
import { type SignInOptions, signInByBrowser, signInByPaste } from '../../../adapters/sign-in.ts'
import { BackupError } from '../../errors.ts'
import { readPasswordFile } from '../../key-file.ts'
import { noteSecret } from '../../redact.ts'
import { EXIT } from '../exit-codes.ts'
import type { Invocation } from '../run.ts'

interface LoginOptions {
  clientId?: string
  clientSecretFile?: string
  access?: string
  paste?: boolean
  port?: number
  output?: string
  print?: boolean
  /** Of a server for tests, in place of the provider's. */
  authorizeUrl?: string
  tokenUrl?: string
}

interface Access {
  scopes: string[]
  /** Why, in the words of the permission that the user is shown. */
  why: string
}

interface Provider {
  oauth: OAuthProvider
  console: string
  /** By the name for `--access`; the first is the default. */
  access: Record<string, Access>
  /** Whether the app has to have a secret. */
  hasSecret: boolean
  /** Whether the provider shows the code by itself where it is not told where to go back to. */
  showsCode: boolean
}

const GOOGLE = 'https://www.googleapis.com/auth'

const PROVIDERS: Record<OAuthStore, Provider> = {
  'google-drive': {
    oauth: GOOGLE_OAUTH,
    console: 'https://console.cloud.google.com/apis/credentials (an OAuth client of the type "Desktop app")',
    hasSecret: true,
    showsCode: false,
    access: {
      file: { scopes: [`${GOOGLE}/drive.file`], why: 'millrace sees only the files that it makes itself' },
      appdata: { scopes: [`${GOOGLE}/drive.appdata`], why: 'a hidden folder of this app, and nothing else' },
      full: { scopes: [`${GOOGLE}/drive`], why: 'all of the Drive, for a folder that somebody else has made' },
    },
  },
  dropbox: {
    oauth: DROPBOX_OAUTH,
    console: 'https://www.dropbox.com/developers/apps (scoped access; "App folder" is enough)',
    hasSecret: false,
    showsCode: true,
    access: {
      files: {
        scopes: ['files.metadata.read', 'files.content.read', 'files.content.write'],
        why: 'to list, read, write and delete files in the folder of the app',
      },
    },
  },
}

const HTTP_TIMEOUTS = { connectMs: 10_000, idleMs: 30_000 }

/** Signs in to a provider, and keeps or prints what signs in from then on. */
export async function loginCommand(
  name: string,
  options: LoginOptions,
  { output, signal }: Invocation,
): Promise<number> {
  if (!Object.hasOwn(PROVIDERS, name)) {
    throw new BackupError(
      'USAGE',
      `There is nothing to sign in to at "${name}". Known are ${Object.keys(PROVIDERS).join(', ')}.`,
    )
  }
  const store = name as OAuthStore
  // Before anything is asked.
  const { port = 0 } = options
  if (!(port >= 0 && port <= 65_535)) {
    throw new BackupError('USAGE', '--port has to be a whole number from 0 (any) to 65535.')
  }
  accessOf(PROVIDERS[store], options.access)
  const app = await findApp(store, PROVIDERS[store], options)
  const { credentials, scopes, isAllAllowed } = await obtainCredentials(store, app, options, signal)
  const code = isAllAllowed ? EXIT.GOOD : EXIT.INCOMPLETE
  if (options.print) {
    output.result('login', { provider: store, ...credentials, scopes }, credentials.refreshToken)
    return code
  }
  const file = options.output ?? credentialsFile(store)
  await saveOAuthCredentials(file, credentials)
  output.result(
    'login',
    { provider: store, file, scopes },
    `Signed in. What signs in from now on is in ${file}: keep it secret.`,
  )
  return code
}

export interface OAuthAppKeys {
  clientId: string
  clientSecret?: string | undefined
}

/** Where an app of one's own is made, and whether it has a secret. */
export function appHelp(store: OAuthStore): { console: string; hasSecret: boolean } {
  const { console: page, hasSecret } = PROVIDERS[store]
  return { console: page, hasSecret }
}

/**
 * Signs in to a provider; the addresses to open are written to stderr.
 * @returns what signs in from then on; nothing of it is kept.
 * @throws BackupError USAGE when the provider gives no refresh token; StorageError; AbortError.
 */
export async function obtainCredentials(
  store: OAuthStore,
  { clientId, clientSecret }: OAuthAppKeys,
  options: Pick<LoginOptions, 'access' | 'paste' | 'port' | 'authorizeUrl' | 'tokenUrl'>,
  signal: AbortSignal,
): Promise<{ credentials: OAuthCredentials; scopes: TokenAnswer['scopes']; isAllAllowed: boolean }> {
  const provider = PROVIDERS[store]
  const access = accessOf(provider, options.access)
  const http = new HttpClient(HTTP_TIMEOUTS)
  try {
    const oauth = {
      ...provider.oauth,
      ...(options.authorizeUrl === undefined ? {} : { authorizeUrl: options.authorizeUrl }),
      ...(options.tokenUrl === undefined ? {} : { tokenUrl: options.tokenUrl }),
    }
    const app = { provider: oauth, clientId, http, ...(clientSecret === undefined ? {} : { clientSecret }) }
    const say = (text: string) => process.stderr.write(`${text}\n`)
    const signInOptions: SignInOptions = {
      scopes: access.scopes,
      signal,
      onUrl: (url) => {
        say(`Asked for: ${access.scopes.join(' ')}\n  (${access.why})\n\nOpen this address and allow it:\n\n  ${url}\n`)
      },
    }
    const answer = await signIn(provider, app, options, signInOptions, say)
    const { refreshToken } = answer
    if (refreshToken === undefined) {
      throw new BackupError(
        'USAGE',
        `${oauth.name} gave no refresh token. Remove the app from the account's connected apps, then sign in again.`,
      )
    }
    const credentials = { clientId, refreshToken, ...(clientSecret === undefined ? {} : { clientSecret }) }
    const missing = access.scopes.filter((scope) => answer.scopes && !answer.scopes.includes(scope))
    if (missing.length > 0) say(`Warning: not allowed: ${missing.join(' ')}. Some things will be refused.`)
    return { credentials, scopes: answer.scopes, isAllAllowed: missing.length === 0 }
  } finally {
    http.destroy()
  }
}

function signIn(
  provider: Provider,
  app: Parameters<typeof signInByBrowser>[0],
  options: Pick<LoginOptions, 'paste' | 'port'>,
  signInOptions: SignInOptions,
  say: (text: string) => void,
): Promise<TokenAnswer> {
  const byPaste = options.paste ?? (provider.showsCode && options.port === undefined)
  if (!byPaste) {
    say('Waiting for the browser to come back. On a machine without one, use --paste.')
    return signInByBrowser(app, options.port ?? 0, signInOptions)
  }
  // Nothing listens there: the browser says so, and its address bar has the code.
  const redirectUri = provider.showsCode ? undefined : `http://127.0.0.1:${options.port ?? 8085}/`
  const hint = provider.showsCode
    ? 'Paste the code that is shown at the end: '
    : 'At the end the browser says that it cannot open a page on 127.0.0.1. Paste its whole address: '
  return signInByPaste(app, redirectUri, () => readAnswer(hint, signInOptions.signal), signInOptions)
}

async function readAnswer(hint: string, signal: AbortSignal | undefined): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return await lines.question(hint, signal ? { signal } : {})
  } finally {
    lines.close()
  }
}

function accessOf({ access }: Provider, name: string | undefined): Access {
  const chosen = name ?? (Object.keys(access)[0] as string)
  if (Object.hasOwn(access, chosen)) return access[chosen] as Access
  throw new BackupError('USAGE', `--access is one of ${Object.keys(access).join(', ')}.`)
}

async function findApp(
  store: OAuthStore,
  { console: page, hasSecret }: Provider,
  options: LoginOptions,
): Promise<{ clientId: string; clientSecret: string | undefined }> {
  const known = appFromEnvironment(store)
  const clientId = options.clientId ?? known.clientId
  if (!clientId) {
    throw new BackupError(
      'USAGE',
      `Name the app with --client-id. It is made at ${page}; docs/providers/${store}.md says how.`,
    )
  }
  if (options.clientSecretFile !== undefined) {
    const clientSecret = await readPasswordFile(options.clientSecretFile)
    noteSecret(clientSecret)
    return { clientId, clientSecret }
  }
  if (known.clientSecret !== undefined || !hasSecret) return { clientId, clientSecret: known.clientSecret }
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    const variable = store === 'google-drive' ? 'MILLRACE_GOOGLE_CLIENT_SECRET' : 'MILLRACE_DROPBOX_CLIENT_SECRET'
    throw new BackupError('USAGE', `The app's secret is missing. Set ${variable}, or use --client-secret-file.`)
  }
  const { isCancel, password: askHidden } = await import('@clack/prompts')
  const answer = await askHidden({ message: "The app's client secret", output: process.stderr })
  if (isCancel(answer) || !answer) throw new BackupError('USAGE', 'No secret was given. Nothing was done.')
  return { clientId, clientSecret: answer }
}
