import { fileURLToPath } from 'node:url'
import { openStorage } from '../../adapters/open.ts'
import type { Storage } from '../../adapters/storage.ts'
import type { LoadedConfig } from '../config/load.ts'
import { destinationNames, hasDestination, serverNames, serverSettings, stateFolderOf } from '../config/settings.ts'
import { openDestination } from '../config/storage.ts'
import { removeEmptyFolders, uppermostMissing } from '../folders.ts'
import { checkConfig } from './config.ts'
import { type Finding, fail } from './finding.ts'
import { checkMount } from './mount.ts'
import { checkRuntime } from './runtime.ts'
import { checkServer } from './source.ts'
import { checkBackups, checkStore } from './store.ts'

export type { Finding, FindingState } from './finding.ts'

export interface DoctorOptions {
  /** The config; only what millrace runs on is looked at without one. */
  file?: string | undefined
  /** A store by its URL, or a destination of the config by its name: only this one is looked at. */
  to?: string | undefined
  signal: AbortSignal
}

/**
 * Looks at all that a backup stands on: the runtime, the config and its secrets, each store with its rights and clock,
 * the sources, and what the last runs have left. Nothing is left behind, and nothing that is wrong throws.
 * @returns the findings, as they come.
 * @throws AbortError.
 */
export async function* examine({ file, to, signal }: DoctorOptions): AsyncGenerator<Finding> {
  const findings: Finding[] = []
  let loaded: LoadedConfig | undefined
  if (file !== undefined) {
    const checking = checkConfig(file)
    for (;;) {
      const { done, value } = await checking.next()
      if (done) {
        loaded = value
        break
      }
      findings.push(value)
    }
  }
  // The config says where the state folder is.
  const resumes = loaded && serverNames(loaded).some((name) => serverSettings(loaded, name).resume)
  yield* checkRuntime(stateFolderOf(loaded), resumes ?? false)
  yield* findings
  signal.throwIfAborted()
  const names = to === undefined ? (loaded ? destinationNames(loaded) : []) : [to]
  for (const name of names) yield* checkPlace(loaded, name, signal)
  if (!loaded || to !== undefined) return
  for (const name of serverNames(loaded)) {
    yield* checkServer(loaded, serverSettings(loaded, name), stateFolderOf(loaded), signal)
  }
}

async function* checkPlace(
  loaded: LoadedConfig | undefined,
  name: string,
  signal: AbortSignal,
): AsyncGenerator<Finding> {
  const isNamed = loaded !== undefined && hasDestination(loaded, name)
  let storage: Storage | undefined
  // A URL may be long, and holds no credentials.
  let subject = isNamed ? name : 'store'
  try {
    storage = isNamed ? await openDestination(loaded as LoadedConfig, name) : await openStorage(name)
    if (!isNamed) subject = storage.location
    const root = storage.adapter === 'filesystem' ? fileURLToPath(storage.location) : undefined
    const missing = root === undefined ? undefined : uppermostMissing(root)
    let canBeListed = false
    try {
      canBeListed = yield* checkStore(subject, storage, signal)
    } finally {
      if (root !== undefined && missing !== undefined) await removeEmptyFolders(root, missing)
    }
    if (isNamed) yield* checkMount(loaded as LoadedConfig, name)
    if (!isNamed || !canBeListed) return
    for (const server of serverNames(loaded as LoadedConfig)) {
      const settings = serverSettings(loaded as LoadedConfig, server)
      if (settings.destinations.includes(name)) yield* checkBackups(name, storage, settings, signal)
    }
  } catch (error) {
    if (signal.aborted) throw error
    yield fail('destination', subject, (error as Error).message, '`millrace check` tries it alone.')
  } finally {
    await storage?.close()
  }
}
