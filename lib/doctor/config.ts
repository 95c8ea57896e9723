import { stat } from 'node:fs/promises'
import { type LoadedConfig, loadConfig } from '../config/load.ts'
import { keysOf, rconPasswordOf } from '../config/open.ts'
import { pathFrom } from '../config/paths.ts'
import type { EncryptionConfig } from '../config/schema.ts'
import { resolvePassword } from '../config/secret.ts'
import { destinationNames, serverNames, serverSettings } from '../config/settings.ts'
import { secretReferences } from '../config/storage.ts'
import { BackupError } from '../errors.ts'
import { type Finding, fail, ok, warn } from './finding.ts'

/**
 * Loads a config, and looks at it.
 * @returns the config, when it can be used.
 */
export async function* checkConfig(file: string): AsyncGenerator<Finding, LoadedConfig | undefined> {
  let loaded: LoadedConfig
  try {
    loaded = await loadConfig(file)
  } catch (error) {
    if (!(error instanceof BackupError)) throw error
    for (const line of error.lines ?? [error.message]) {
      yield fail('config', file, line, 'Correct it there; `millrace config example` shows what it can say.')
    }
    return undefined
  }
  yield ok('config', file, 'valid')
  for (const message of loaded.warnings) {
    const isDanger = loaded.dangers.includes(message)
    yield (isDanger ? fail : warn)('config', file, message)
  }
  yield* checkSecretModes(loaded)
  yield* checkSecrets(loaded)
  return loaded
}

async function* checkSecretModes(loaded: LoadedConfig): AsyncGenerator<Finding> {
  if (process.platform === 'win32') return
  const files = secretFiles(loaded)
  let own = 0
  for (const file of files) {
    const mode = await stat(file).then(
      (found) => found.mode & 0o777,
      () => undefined,
    )
    // One that is missing is told where it is read.
    if (mode === undefined) continue
    const shown = mode.toString(8).padStart(4, '0')
    const advice = `\`chmod 600 ${file}\``
    if (mode & 0o002) yield fail('secret file', file, `anybody may write it (mode ${shown})`, advice)
    else if (mode & 0o077) yield warn('secret file', file, `others may read or write it (mode ${shown})`, advice)
    else own += 1
  }
  if (files.size > 0 && own === files.size) {
    yield ok(
      'secret file',
      undefined,
      `${files.size === 1 ? 'the one is' : `all ${files.size} are`} for their owner alone`,
    )
  }
}

/** The files that the config says secrets are in. */
function secretFiles(loaded: LoadedConfig): Set<string> {
  const { config, folder } = loaded
  const references = [
    ...destinationNames(loaded).flatMap((name) => secretReferences(loaded, name).map(({ reference }) => reference)),
    ...encryptionReferences(config.encryption),
    ...Object.values(config.servers).flatMap(({ encryption, quiesce }) => [
      ...encryptionReferences(encryption),
      ...(quiesce?.by === 'rcon' ? [quiesce.password] : []),
    ]),
  ]
  return new Set(references.flatMap((one) => (one.startsWith('file:') ? [pathFrom(folder, one.slice(5).trim())] : [])))
}

function encryptionReferences(encryption: EncryptionConfig | undefined): string[] {
  if (!encryption) return []
  const { password, key, previousPasswords = [], previousKeys = [] } = encryption
  return [password, key, ...previousPasswords, ...previousKeys].filter((one) => one !== undefined)
}

async function* checkSecrets(loaded: LoadedConfig): AsyncGenerator<Finding> {
  const { folder } = loaded
  const checks = [
    ...destinationNames(loaded).flatMap((name) =>
      secretReferences(loaded, name).map(({ reference, what }) => ({
        subject: what,
        get: () => resolvePassword(reference, { folder, what }) as Promise<unknown>,
      })),
    ),
    ...serverNames(loaded).flatMap((name) => {
      const settings = serverSettings(loaded, name)
      return [
        { subject: `servers.${name}: encryption`, get: () => encryptionOf(loaded, name) },
        ...(settings.quiesce?.by === 'rcon'
          ? [{ subject: `servers.${name}.quiesce.password`, get: () => rconPasswordOf(loaded, settings) }]
          : []),
      ]
    }),
  ]
  let failures = 0
  for (const { subject, get } of checks) {
    try {
      await get()
    } catch (error) {
      failures += 1
      yield fail('secret', subject, (error as Error).message, 'Put it there, or correct in the config where it is.')
    }
  }
  if (failures === 0) yield ok('secret', undefined, 'all can be read')
}

async function encryptionOf(loaded: LoadedConfig, server: string): Promise<unknown> {
  const keys = await keysOf(loaded, server)
  if (keys || process.env.MILLRACE_PASSWORD) return keys
  throw new BackupError('USAGE', `Nothing says what ${server} is encrypted with, and MILLRACE_PASSWORD is not set.`)
}
