import { isWithin } from '../../../adapters/mounts.ts'
import { profileOf, type S3ProfileName } from '../../../adapters/s3-profiles.ts'
import type { DestinationConfig } from '../../config/destination.ts'
import { type Asker, needed } from './ask.ts'
import { type Keeper, keeperOf } from './keeper.ts'
import { typedPath } from './paths.ts'
import type { SecretBox } from './secret-box.ts'
import { askSignIn, type SignIn } from './sign-in.ts'

export type Provider = DestinationConfig['provider']

/** A destination, as `destinations` of the config has it: secrets as where they are. */
export interface DestinationAnswers {
  name: string
  settings: DestinationConfig
}

export interface DestinationContext {
  ask: Asker
  box: SecretBox
  signIn: SignIn
  /** What is backed up: a store in it would be backed up with it. */
  source: string
}

/** What a part of the answers is called, for whoever corrects it. */
export type Part = 'settings' | 'credentials'

const DEFAULT_NAMES: Record<Provider, string> = {
  filesystem: 'local',
  s3: 'offsite',
  'google-drive': 'drive',
  dropbox: 'dropbox',
  'backblaze-b2': 'b2',
}

/** Asks where backups go. @param taken names of other destinations. */
export async function askDestination(
  context: DestinationContext,
  taken: ReadonlySet<string>,
): Promise<DestinationAnswers> {
  const provider = await context.ask.choose<Provider>('Where do backups go?', [
    { value: 'filesystem', label: 'A folder', hint: 'of this machine, another disk, or a mount' },
    { value: 's3', label: 'S3, or what speaks its protocol', hint: 'AWS, R2, Wasabi, Spaces, MinIO, Ceph, …' },
    { value: 'google-drive', label: 'Google Drive' },
    { value: 'dropbox', label: 'Dropbox' },
    { value: 'backblaze-b2', label: 'Backblaze B2' },
  ])
  const name = freeName(DEFAULT_NAMES[provider], taken)
  const settings = await askSettings(context, { provider } as DestinationConfig)
  return { name, settings: await askCredentials(context, name, settings) }
}

function freeName(wanted: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? wanted : `${wanted}-${number}`
    if (!taken.has(name)) return name
  }
}

/** Asks a part of the answers again, beginning from those that there are. */
export async function correct(
  context: DestinationContext,
  { name, settings }: DestinationAnswers,
  part: Part,
): Promise<DestinationAnswers> {
  const corrected =
    part === 'settings' ? await askSettings(context, settings) : await askCredentials(context, name, settings)
  return { name, settings: corrected }
}

/** Whether there are credentials to correct. */
export function hasCredentials({ provider }: DestinationConfig): boolean {
  return provider !== 'filesystem'
}

/** Where it is: bucket, folder, region. What was answered before stands there already. */
async function askSettings({ ask, source }: DestinationContext, before: DestinationConfig): Promise<DestinationConfig> {
  switch (before.provider) {
    case 'filesystem': {
      const root = await ask.text('Which folder? (made when it is missing; on another disk than the server)', {
        initial: before.root ?? '',
        validate: (answer) => {
          if (answer === '') return 'A folder is needed.'
          return isWithin(typedPath(answer), source)
            ? 'It is in what is backed up: name a folder elsewhere.'
            : undefined
        },
      })
      return { ...before, root: typedPath(root) }
    }
    case 's3':
      return askS3(ask, before)
    case 'google-drive': {
      const folder = await ask.text('Which folder of the Drive? (a path; made when it is missing)', {
        initial: before.folder ?? 'backups/millrace',
        validate: needed('A folder'),
      })
      return { ...before, folder }
    }
    case 'dropbox': {
      const root = await ask.text('Which folder? (beneath the folder of the app; made when it is missing)', {
        initial: before.root ?? '/backups',
        validate: (answer) => (answer.startsWith('/') ? undefined : 'It begins with a slash, as in /backups.'),
      })
      return { ...before, root }
    }
    case 'backblaze-b2': {
      const bucket = await ask.text('Bucket', { initial: before.bucket ?? '', validate: needed("The bucket's name") })
      const prefix = await askPrefix(ask, before.prefix)
      return clean({ ...before, bucket, prefix })
    }
  }
}

const S3_STORES: Record<S3ProfileName, { label: string; endpoint?: string }> = {
  aws: { label: 'Amazon S3' },
  r2: { label: 'Cloudflare R2', endpoint: 'https://ACCOUNT.r2.cloudflarestorage.com' },
  'backblaze-b2': { label: 'Backblaze B2, by its S3 face', endpoint: 'https://s3.eu-central-003.backblazeb2.com' },
  wasabi: { label: 'Wasabi', endpoint: 'https://s3.eu-central-1.wasabisys.com' },
  digitalocean: { label: 'DigitalOcean Spaces', endpoint: 'https://fra1.digitaloceanspaces.com' },
  scaleway: { label: 'Scaleway', endpoint: 'https://s3.fr-par.scw.cloud' },
  gcs: { label: 'Google Cloud Storage', endpoint: 'https://storage.googleapis.com' },
  minio: { label: 'MinIO', endpoint: 'https://minio.example.org' },
  ceph: { label: 'Ceph', endpoint: 'https://rgw.example.org' },
  swift: { label: 'OpenStack Swift', endpoint: 'https://swift.example.org' },
  other: { label: 'Another one', endpoint: 'https://s3.example.org' },
}

type S3Settings = Extract<DestinationConfig, { provider: 's3' }>

async function askS3(ask: Asker, before: S3Settings): Promise<S3Settings> {
  const profile = await ask.choose<S3ProfileName>(
    'Whose?',
    (Object.keys(S3_STORES) as S3ProfileName[]).map((value) => ({ value, label: S3_STORES[value].label })),
    before.profile ?? 'aws',
  )
  const sample = S3_STORES[profile].endpoint
  const endpoint =
    sample === undefined
      ? undefined
      : await ask.text(`Endpoint, such as ${sample}`, {
          initial: before.endpoint ?? (profile === 'gcs' ? sample : 'https://'),
          validate: checkEndpoint,
        })
  const bucket = await ask.text('Bucket', { initial: before.bucket ?? '', validate: needed("The bucket's name") })
  const known = profileOf(endpoint === undefined ? undefined : new URL(endpoint), profile).region
  const region = await ask.text('Region', {
    initial: before.region ?? process.env.AWS_REGION ?? known ?? '',
    validate: needed('The region, such as eu-central-1,'),
  })
  const prefix = await askPrefix(ask, before.prefix)
  return clean({ ...before, profile, endpoint, bucket, region, prefix })
}

function checkEndpoint(answer: string): string | undefined {
  if (!URL.canParse(answer)) return 'It is a URL, as in https://s3.example.org.'
  const { protocol, username, password } = new URL(answer)
  if (!/^https?:$/.test(protocol)) return 'It begins with https:// or http://.'
  if (username !== '' || password !== '') return 'Leave the credentials out: they are asked for.'
  return undefined
}

async function askPrefix(ask: Asker, before: string | undefined): Promise<string | undefined> {
  const prefix = await ask.text('Prefix, to keep backups apart from other objects (empty: none)', {
    initial: before ?? 'millrace',
  })
  return prefix.replace(/^\/+|\/+$/g, '') || undefined
}

/** What signs in. */
async function askCredentials(
  context: DestinationContext,
  name: string,
  before: DestinationConfig,
): Promise<DestinationConfig> {
  switch (before.provider) {
    case 'filesystem':
      return before
    case 's3': {
      const keeper = await chooseKeeper(context, name, 'S3', true)
      const accessKeyId = await keeper?.('access-key-id', 'Access key id', 'shown')
      const secretAccessKey = await keeper?.('secret-access-key', 'Secret access key', 'hidden')
      return clean({ ...before, accessKeyId, secretAccessKey })
    }
    case 'backblaze-b2': {
      const keeper = (await chooseKeeper(context, name, 'B2', false)) as Keeper
      const keyId = await keeper('key-id', 'Application key id (keyID)', 'shown')
      const applicationKey = await keeper('application-key', 'Application key', 'hidden')
      return { ...before, keyId, applicationKey }
    }
    default:
      return clean({ ...before, ...(await askSignIn(context, name, before.provider)) }) as DestinationConfig
  }
}

/** @returns undefined: nothing is written, and the SDK looks where it always does. */
async function chooseKeeper(
  { ask, box }: DestinationContext,
  name: string,
  provider: string,
  hasSdk: boolean,
): Promise<Keeper | undefined> {
  const how = await ask.choose<'typed' | 'environment' | 'sdk'>('Where are its credentials?', [
    { value: 'typed', label: 'Type them now', hint: 'each is kept in a file that only you can read' },
    { value: 'environment', label: 'In environment variables', hint: 'only their names are written' },
    ...(hasSdk
      ? [{ value: 'sdk' as const, label: 'Where the AWS SDK looks', hint: 'AWS_ACCESS_KEY_ID, profiles, roles' }]
      : []),
  ])
  return how === 'sdk' ? undefined : keeperOf(how, { ask, box, name, prefix: provider })
}

/** Without what is undefined: the config has no such value. */
function clean<T extends object>(settings: T): T {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as T
}
