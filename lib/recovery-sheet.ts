import { pathToFileURL } from 'node:url'
import { quote } from 'shlex'
import { stringify } from 'yaml'
import type { DestinationConfig } from './config/destination.ts'
import type { LoadedConfig } from './config/load.ts'
import { keysOf } from './config/open.ts'
import { pathFrom } from './config/paths.ts'
import { resolvePassword } from './config/secret.ts'
import { destinationConfig, type ServerSettings, serverSettings } from './config/settings.ts'
import { VERSION } from './version.ts'

/** A part of a recovery sheet. */
export type SheetPart =
  | { kind: 'heading'; text: string }
  | { kind: 'text'; text: string }
  | { kind: 'facts'; rows: [name: string, value: string][] }
  /** A line to write on by hand. */
  | { kind: 'blank'; label: string }
  /** Lines for a shell, to be run in the order of the sheet. */
  | { kind: 'commands'; lines: string[] }

/** What to keep of a server's backups, and how to restore them on a machine that has nothing. */
export interface RecoverySheet {
  title: string
  parts: SheetPart[]
}

export interface SheetOptions {
  /** Whether the password, or the key, stands on it. */
  withPassword?: boolean | undefined
  now?: Date | undefined
}

/** What is asked for in the shell, and not written on the sheet. */
interface Asked {
  variable: string
  label: string
  /** What stands on the sheet, of what is no secret and known. */
  value?: string | undefined
  isSecret: boolean
}

/**
 * Makes the recovery sheet of a server: what to keep, where the backups are, and the commands that restore them on a
 * fresh machine. No secret is on it, but for the password or key with `withPassword`.
 * @throws BackupError USAGE for a server that the config does not have, and for a password that cannot be read where it
 * is asked for.
 */
export async function makeRecoverySheet(
  loaded: LoadedConfig,
  server: string,
  { withPassword = false, now = new Date() }: SheetOptions = {},
): Promise<RecoverySheet> {
  const settings = serverSettings(loaded, server)
  const secret = secretOf(settings)
  const parts: SheetPart[] = [
    {
      kind: 'text',
      text: 'Keep this sheet away from the machine that is backed up: on paper, or where you keep passwords. With it, and with what is written on it by hand, everything can be restored on a machine that has nothing.',
    },
    {
      kind: 'facts',
      rows: [
        ['server', server],
        [
          'backed up',
          typeof settings.source === 'string' ? settings.source : `output of ${settings.source.command[0]}`,
        ],
        ['encrypted with', secret === 'none' ? 'nothing' : `a ${secret}`],
        ['made', `${now.toISOString().slice(0, 10)}, by millrace ${VERSION}`],
        ['format', "version 1; transforms/FORMAT.md in millrace's package says how to read it without millrace"],
      ],
    },
    { kind: 'heading', text: 'What to keep' },
    ...(await keptParts(loaded, settings, secret, withPassword)),
    { kind: 'heading', text: '1. A machine to restore on' },
    {
      kind: 'text',
      text: 'Install Node 22.15 or newer (https://nodejs.org), then millrace; in a checkout of it, `npm ci && npm link` does the same. The commands of this sheet are for bash or zsh.',
    },
    { kind: 'commands', lines: [`npm install -g millrace@${VERSION}`] },
  ]
  const { destinations } = settings
  for (const [at, name] of destinations.entries()) {
    const heading =
      at === 0
        ? `2. Restore from ${name}`
        : `Or from ${name}, if ${destinations.slice(0, at).join(' and ')} cannot be used`
    parts.push({ kind: 'heading', text: heading })
    parts.push(...(await restoreParts(loaded, server, name, secret)))
  }
  parts.push({
    kind: 'text',
    text: `\`millrace list\` shows the others: name one by its id instead of latest. \`--include 'region/r.0.0.mca'\` restores single files. Move what was restored to its place while the server is stopped.`,
  })
  return { title: `Recovery sheet: the backups of ${server}`, parts }
}

const OTHER_PATH =
  'Connect the disk that it is on. Where it is mounted elsewhere, write that path after file:// instead.'

type Secret = 'password' | 'key' | 'none'

function secretOf({ encryption }: ServerSettings): Secret {
  if (encryption === false) return 'none'
  return encryption?.key === undefined ? 'password' : 'key'
}

async function keptParts(
  loaded: LoadedConfig,
  settings: ServerSettings,
  secret: Secret,
  withPassword: boolean,
): Promise<SheetPart[]> {
  const parts: SheetPart[] = []
  if (secret !== 'none') {
    const label = secret === 'key' ? 'The key (64 hex digits)' : 'The password'
    parts.push({
      kind: 'text',
      text: `If the ${secret} is lost, so are the backups: nobody can read them without it.`,
    })
    if (withPassword) parts.push({ kind: 'facts', rows: [[label, await readSecret(loaded, settings, secret)]] })
    else parts.push({ kind: 'blank', label })
    const { previousPasswords = [], previousKeys = [] } = settings.encryption || {}
    for (const [at] of previousPasswords.entries()) {
      parts.push({ kind: 'blank', label: `Earlier password ${at + 1}, for older backups` })
    }
    for (const [at] of previousKeys.entries())
      parts.push({ kind: 'blank', label: `Earlier key ${at + 1}, for older backups` })
  }
  for (const name of settings.destinations) {
    const one = destinationConfig(loaded, name)
    for (const { label, value, isSecret } of await askedOf(loaded, one)) {
      if (isSecret || value === undefined) parts.push({ kind: 'blank', label: `${label} (${name})` })
    }
  }
  return parts
}

async function readSecret(loaded: LoadedConfig, settings: ServerSettings, secret: Secret): Promise<string> {
  if (settings.encryption === undefined && process.env.MILLRACE_PASSWORD) return process.env.MILLRACE_PASSWORD
  const keys = await keysOf(loaded, settings.name)
  const [password] = [keys?.password ?? []].flat()
  const [key] = [keys?.key ?? []].flat()
  return secret === 'key' ? Buffer.from(key as Uint8Array).toString('hex') : (password ?? '')
}

async function restoreParts(loaded: LoadedConfig, server: string, name: string, secret: Secret): Promise<SheetPart[]> {
  const destination = destinationConfig(loaded, name)
  const asked = await askedOf(loaded, destination)
  if (secret === 'password') {
    asked.unshift({ variable: 'MILLRACE_PASSWORD', label: 'The password', isSecret: true })
  }
  const lines = asked.map(({ variable, label, value, isSecret }) => {
    if (value !== undefined) return `export ${variable}=${quote(value)}`
    // read keeps it out of the shell's history. Spaces at its ends belong to a password, and to nothing else.
    const read = variable === 'MILLRACE_PASSWORD' ? 'IFS= read' : 'read'
    return `printf '%s: ' ${quote(label)}; ${read} -r${isSecret ? 's' : ''} ${variable}; export ${variable}; echo`
  })
  if (secret === 'key') {
    lines.unshift(
      `printf 'The key, 64 hex digits: '; read -rs KEY; echo; (umask 077; printf '%s\\n' "$KEY" > millrace.key)`,
    )
  }
  const root = destination.provider === 'filesystem' ? pathFrom(loaded.folder, destination.root) : ''
  const url = storeUrl(destination, root)
  if (url === undefined) lines.push(`cat > recovery.yaml <<'END'\n${recoveryConfig(destination, name, server)}END`)
  else lines.push(`STORE=${quote(url)}`)
  const from = url === undefined ? `--config recovery.yaml --from ${name}` : '--from "$STORE"'
  const keys = secret === 'none' ? ' --no-encryption' : secret === 'key' ? ' --key-file millrace.key' : ''
  lines.push(
    `millrace list ${from} --server ${server}`,
    `millrace restore latest ${from} --server ${server}${keys} --target ${quote(`restored-${server}`)}`,
  )
  return [
    { kind: 'facts', rows: factsOf(destination, root) },
    ...(destination.provider === 'filesystem' ? [{ kind: 'text' as const, text: OTHER_PATH }] : []),
    { kind: 'commands', lines },
  ]
}

/** Where the backups are, in words. */
function factsOf(destination: DestinationConfig, root: string): [string, string][] {
  const given: [string, unknown][] = [['store', destination.provider]]
  switch (destination.provider) {
    case 'filesystem':
      given.push(['folder', root])
      break
    case 's3': {
      const { bucket, prefix, region, endpoint, profile, forcePathStyle } = destination
      given.push(['bucket', bucket], ['prefix', prefix], ['region', region], ['endpoint', endpoint])
      given.push(['profile', profile], ['path style', forcePathStyle])
      break
    }
    case 'google-drive': {
      const { folder, folderId, sharedDriveId, appData } = destination
      given.push(['folder', folder], ['folder id', folderId], ['shared drive', sharedDriveId], ['app data', appData])
      break
    }
    case 'dropbox': {
      const { root: folder, namespace, rootNamespace } = destination
      given.push(['folder', folder], ['namespace', namespace], ['root namespace', rootNamespace])
      break
    }
    case 'backblaze-b2':
      given.push(['bucket', destination.bucket], ['prefix', destination.prefix])
  }
  return given.flatMap(([label, value]) => (value === undefined ? [] : [[label, String(value)] as [string, string]]))
}

/** What its credentials are called in the environment. An id is no secret, and stands on the sheet where it can be had. */
async function askedOf(loaded: LoadedConfig, destination: DestinationConfig): Promise<Asked[]> {
  const id = async (variable: string, label: string, reference: string | undefined): Promise<Asked> => {
    // The sheet is of use without it: then there is a line to write on.
    const value =
      reference && (await resolvePassword(reference, { folder: loaded.folder, what: label }).catch(() => undefined))
    return { variable, label, value: value || undefined, isSecret: false }
  }
  const secret = (variable: string, label: string): Asked => ({ variable, label, isSecret: true })
  switch (destination.provider) {
    case 'filesystem':
      return []
    case 's3':
      return [
        await id('AWS_ACCESS_KEY_ID', 'Access key id', destination.accessKeyId),
        secret('AWS_SECRET_ACCESS_KEY', 'Secret access key'),
      ]
    case 'backblaze-b2':
      return [
        await id('B2_APPLICATION_KEY_ID', 'Application key id', destination.keyId),
        secret('B2_APPLICATION_KEY', 'Application key'),
      ]
    case 'google-drive':
      return [
        await id('MILLRACE_GOOGLE_CLIENT_ID', 'Client id of the app', destination.clientId),
        secret('MILLRACE_GOOGLE_CLIENT_SECRET', 'Client secret of the app'),
        secret('MILLRACE_GOOGLE_REFRESH_TOKEN', 'Refresh token'),
      ]
    case 'dropbox':
      return [
        await id('MILLRACE_DROPBOX_CLIENT_ID', 'Client id of the app', destination.clientId),
        ...(destination.clientSecret === undefined && destination.refreshToken !== undefined
          ? []
          : [secret('MILLRACE_DROPBOX_CLIENT_SECRET', 'Client secret of the app (empty: none)')]),
        secret('MILLRACE_DROPBOX_REFRESH_TOKEN', 'Refresh token'),
      ]
  }
}

/** @returns undefined for settings that no URL can say. */
function storeUrl(destination: DestinationConfig, root: string): string | undefined {
  switch (destination.provider) {
    case 'filesystem':
      return pathToFileURL(root).href
    case 's3': {
      const { bucket, prefix, region, endpoint, profile, forcePathStyle } = destination
      return url(`s3://${bucket}`, prefix, { endpoint, region, profile, forcePathStyle })
    }
    case 'backblaze-b2':
      return url(`b2://${destination.bucket}`, destination.prefix, { endpoint: destination.endpoint })
    case 'google-drive': {
      const { folder, folderId, appData, sharedDriveId: sharedDrive, endpoint } = destination
      if (folder !== undefined && (folderId !== undefined || appData)) return undefined
      return url(`drive://${appData ? 'appdata' : (folderId ?? '')}`, folder, { sharedDrive, endpoint })
    }
    case 'dropbox': {
      const { root: folder, namespace, rootNamespace, endpoint } = destination
      return rootNamespace === undefined ? url('dropbox://', folder, { namespace, endpoint }) : undefined
    }
  }
}

function url(begin: string, path: string | undefined, parameters: Record<string, unknown>): string {
  const segments = (path ?? '').split('/').filter((segment) => segment !== '')
  const query = Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(
      ([name, value]) => `${name}=${encodeURIComponent(String(value)).replaceAll('%3A', ':').replaceAll('%2F', '/')}`,
    )
  const suffix = query.length > 0 ? `?${query.join('&')}` : ''
  return `${begin}/${segments.map(encodeURIComponent).join('/')}${suffix}`
}

/** A config that says no more than where the backups are; who signs in is in the environment. */
function recoveryConfig(destination: DestinationConfig, name: string, server: string): string {
  const { clientId: _, clientSecret: __, refreshToken: ___, ...settings } = destination as Record<string, unknown>
  return stringify({ destinations: { [name]: settings }, servers: { [server]: { source: 'world' } } })
}
