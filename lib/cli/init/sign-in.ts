import {
  appFromEnvironment,
  credentialsFile,
  findOAuthCredentials,
  type OAuthCredentials,
  type OAuthStore,
} from '../../../adapters/credentials.ts'
import { printable } from '../format.ts'
import { appHelp, type OAuthAppKeys } from '../work/login.ts'
import { needed } from './ask.ts'
import type { DestinationContext } from './destination.ts'
import { keeperOf } from './keeper.ts'

/** Signs in to a provider with a browser here, or by pasting what one elsewhere ends with. */
export type SignIn = (store: OAuthStore, app: OAuthAppKeys, paste: boolean) => Promise<OAuthCredentials>

/** Fields of a destination; none: what `millrace login` keeps is used. */
interface OAuthFields {
  clientId: string | undefined
  clientSecret: string | undefined
  refreshToken: string | undefined
}

const NAMES: Record<OAuthStore, string> = { 'google-drive': 'Google', dropbox: 'Dropbox' }

/** Asks how to sign in to Google Drive or Dropbox. */
export async function askSignIn(context: DestinationContext, name: string, store: OAuthStore): Promise<OAuthFields> {
  const { ask, box } = context
  const isKept = hasKept(store)
  for (;;) {
    const how = await ask.choose<'now' | 'kept' | 'typed' | 'environment'>(
      `How does millrace sign in to ${NAMES[store]}?`,
      [
        ...(isKept
          ? [
              {
                value: 'kept' as const,
                label: `With what \`millrace login ${store}\` keeps`,
                hint: credentialsFile(store),
              },
            ]
          : []),
        { value: 'now', label: 'Sign in now', hint: 'needs an app of your own, see docs/providers' },
        { value: 'typed', label: 'Type a refresh token that there is already' },
        { value: 'environment', label: 'In environment variables', hint: 'only their names are written' },
      ],
    )
    if (how === 'kept') return { clientId: undefined, clientSecret: undefined, refreshToken: undefined }
    if (how === 'now') {
      const fields = await signInNow(context, name, store)
      if (fields) return fields
      continue
    }
    const keeper = keeperOf(how, { ask, box, name, prefix: NAMES[store] })
    const clientId = await keeper('client-id', "The app's client id", 'shown')
    const { hasSecret } = appHelp(store)
    const wantsSecret = hasSecret || (await ask.confirm('Does the app have a secret? (one of PKCE has none)', false))
    const clientSecret = wantsSecret ? await keeper('client-secret', "The app's client secret", 'hidden') : undefined
    return { clientId, clientSecret, refreshToken: await keeper('refresh-token', 'Refresh token', 'hidden') }
  }
}

async function signInNow(
  { ask, box, signIn }: DestinationContext,
  name: string,
  store: OAuthStore,
): Promise<OAuthFields | undefined> {
  const { console: page, hasSecret } = appHelp(store)
  ask.say('info', `The app is made at ${page}; docs/providers/${store}.md says how.`)
  const known = appFromEnvironment(store)
  const clientId = await ask.text("The app's client id", {
    initial: known.clientId,
    validate: needed("The app's client id"),
  })
  const clientSecret = hasSecret
    ? (await ask.hidden("The app's client secret", needed("The app's secret"))).trim()
    : undefined
  const paste = await ask.choose('Where is the browser?', [
    { value: false, label: 'On this machine' },
    { value: true, label: 'On another one', hint: 'what it ends with is pasted here' },
  ])
  try {
    const signed = await signIn(store, { clientId, clientSecret }, paste)
    ask.say('good', 'Signed in.')
    return {
      clientId: await box.keep(`${name}-client-id`, signed.clientId),
      clientSecret:
        signed.clientSecret === undefined ? undefined : await box.keep(`${name}-client-secret`, signed.clientSecret),
      refreshToken: await box.keep(`${name}-refresh-token`, signed.refreshToken),
    }
  } catch (error) {
    if ((error as Error).name === 'AbortError' || (error as Error).name === 'Cancelled') throw error
    ask.say('bad', printable((error as Error).message))
    return undefined
  }
}

function hasKept(store: OAuthStore): boolean {
  try {
    findOAuthCredentials(store)
    return true
  } catch {
    return false
  }
}
