import { type MultipartRules, planParts, RING_BYTES } from '../../adapters/multipart-plan.ts'
import { profileOf } from '../../adapters/s3-profiles.ts'
import type { DestinationConfig } from '../config/destination.ts'
import type { LoadedConfig } from '../config/load.ts'
import { rconPasswordOf } from '../config/open.ts'
import { destinationConfig, type ServerSettings } from '../config/settings.ts'
import { localStores } from '../config/storage.ts'
import { planBackup } from '../plan.ts'
import { openRcon } from '../quiesce/rcon.ts'
import { leftSaving, parseAddress } from '../quiesce/resume.ts'
import { type Finding, fail, ok, warn } from './finding.ts'
import { showBytes } from './runtime.ts'

const RCON_MS = 5000

/** Looks at what a server backs up, and whether its server can be held still. */
export async function* checkServer(
  loaded: LoadedConfig,
  settings: ServerSettings,
  stateFolder: string,
  signal: AbortSignal,
): AsyncGenerator<Finding> {
  yield* checkSource(loaded, settings, signal)
  yield* checkSaving(settings.name, stateFolder)
  if (settings.quiesce?.by === 'rcon') yield await checkRcon(loaded, settings, settings.quiesce, signal)
}

async function* checkSource(
  loaded: LoadedConfig,
  settings: ServerSettings,
  signal: AbortSignal,
): AsyncGenerator<Finding> {
  const { name, source, include, exclude, defaultExcludes } = settings
  if (typeof source !== 'string') {
    yield ok('source', name, `the output of ${source.command[0]}, which is not run for this`)
    return
  }
  let unreadable = 0
  const inside: string[] = []
  try {
    const plan = await planBackup(source, {
      include,
      exclude,
      defaultExcludes,
      signal,
      into: { stores: localStores(loaded, settings.destinations), server: name },
      onLeftOut({ origin, path }) {
        if (origin === 'destination') inside.push(path)
      },
      onWarning: ({ kind }) => {
        if (kind === 'unreadable') unreadable += 1
      },
    })
    const said = `${source}: ${plan.files} ${plan.files === 1 ? 'file' : 'files'}, ${showBytes(plan.bytes)}`
    if (plan.entries === 0 && !settings.allowEmpty) {
      yield fail(
        'source',
        name,
        `${source} is empty`,
        'Is it the right folder, and mounted? An empty one is not backed up.',
      )
    } else yield ok('source', name, said)
    if (unreadable > 0) {
      yield warn(
        'source',
        name,
        `${unreadable} folders of it cannot be read`,
        'Run millrace as a user that may read them.',
      )
    }
    for (const path of inside) {
      yield warn(
        'source',
        name,
        `its backups are stored in ${path}, in the source itself, and left out of it`,
        'What is lost with the source is lost with them: store them elsewhere, or in another place as well.',
      )
    }
    yield* checkSize(loaded, settings, plan.bytes)
  } catch (error) {
    if (signal.aborted) throw error
    yield fail('source', name, (error as Error).message, 'Correct the path in the config, or the rights of the folder.')
  }
}

/** What a source of this size asks of each of its stores. */
export async function* checkSize(
  loaded: LoadedConfig,
  settings: ServerSettings,
  bytes: number,
): AsyncGenerator<Finding> {
  for (const name of settings.destinations) {
    const destination = destinationConfig(loaded, name)
    const limits = await limitsOf(destination, bytes)
    if (limits === undefined) continue
    const subject = `${settings.name} at ${name}`
    const { partBytes, maxParts, maxBytes } = limits
    if (bytes > maxBytes) {
      yield warn(
        'size',
        subject,
        `${showBytes(bytes)} before compression, and one object holds at most ${showBytes(maxBytes)}`,
        'If it compresses to less it is stored; otherwise split the source into several servers, by include.',
      )
    } else if (2 * partBytes > RING_BYTES) {
      yield warn(
        'size',
        subject,
        `${showBytes(bytes)} in at most ${maxParts} parts: parts are ${showBytes(partBytes)}, and an upload takes two of them as memory`,
        'See that there is as much memory, or split the source into several servers.',
      )
    }
  }
}

/** @returns undefined for a folder, which has no limit of its own. */
async function limitsOf(
  destination: DestinationConfig,
  bytes: number,
): Promise<{ partBytes: number; maxParts: number; maxBytes: number } | undefined> {
  const planned = (rules: MultipartRules, wanted: number | undefined) => {
    const { partBytes, maxBytes } = planParts(rules, { expectedSize: bytes, partBytes: wanted })
    return { partBytes, maxParts: rules.maxParts, maxBytes }
  }
  // Each adapter is large, and loaded only where it is used.
  switch (destination.provider) {
    case 's3': {
      const { endpoint, profile, partBytes } = destination
      return planned(profileOf(endpoint === undefined ? undefined : new URL(endpoint), profile).rules, partBytes)
    }
    case 'backblaze-b2': {
      const { b2Rules } = await import('../../adapters/backblaze-b2-write.ts')
      return planned(b2Rules(), destination.partBytes)
    }
    case 'google-drive': {
      const { DRIVE_RULES } = await import('../../adapters/google-drive-write.ts')
      // However large, its parts stay as they are.
      return { partBytes: 0, maxParts: DRIVE_RULES.maxParts, maxBytes: DRIVE_RULES.maxObjectBytes }
    }
    case 'dropbox': {
      const { FILE_MAX_BYTES } = await import('../../adapters/dropbox-write.ts')
      return { partBytes: 0, maxParts: Number.POSITIVE_INFINITY, maxBytes: FILE_MAX_BYTES }
    }
    case 'filesystem':
      return undefined
  }
}

async function* checkSaving(server: string, stateFolder: string): AsyncGenerator<Finding> {
  try {
    for (const { where, since } of await leftSaving(stateFolder, server)) {
      yield fail(
        'saving',
        server,
        `a backup that was killed left saving at ${where} off on ${new Date(since).toISOString()}`,
        'Turn it on now: `millrace resume-saving`.',
      )
    }
  } catch (error) {
    yield warn('saving', server, `whether saving was left off is not known: ${(error as Error).message}`)
  }
}

async function checkRcon(
  loaded: LoadedConfig,
  settings: ServerSettings,
  { address, allowStopped }: { address: string; allowStopped?: boolean | undefined },
  signal: AbortSignal,
): Promise<Finding> {
  try {
    const password = (await rconPasswordOf(loaded, settings)) as string
    const rcon = await openRcon({ ...parseAddress(address), password, connectMs: RCON_MS, signal })
    rcon.close()
    return ok('rcon', settings.name, `${address} answers, and takes the password`)
  } catch (error) {
    if (signal.aborted) throw error
    const { code, message } = error as Error & { code?: string }
    if (code === 'SERVER_STOPPED' && allowStopped) {
      return warn('rcon', settings.name, message, 'A stopped server is backed up as it is. Start it, if it should run.')
    }
    return fail(
      'rcon',
      settings.name,
      message,
      'Compare with enable-rcon, rcon.port and rcon.password of server.properties.',
    )
  }
}
