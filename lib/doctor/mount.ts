import { mountOf } from '../../adapters/mounts.ts'
import type { LoadedConfig } from '../config/load.ts'
import { pathFrom } from '../config/paths.ts'
import { destinationConfig, serverNames, serverSettings } from '../config/settings.ts'
import { type Finding, warn } from './finding.ts'

/**
 * Looks whether a destination is on a disk of its own that could be missing one day: backups would go to the disk
 * beneath, and nobody would see it.
 */
export async function* checkMount(loaded: LoadedConfig, name: string): AsyncGenerator<Finding> {
  const destination = destinationConfig(loaded, name)
  if (destination.provider !== 'filesystem' || destination.mountPoint !== undefined) return
  const on = (path: string) => mountOf(pathFrom(loaded.folder, path))
  const mount = await on(destination.root)
  if (mount === undefined || mount.path === '/') return
  const sources = serverNames(loaded).map((server) => serverSettings(loaded, server).source)
  // Without the disk there would be nothing to back up either, or no config.
  const needed = [loaded.file, ...sources.filter((source) => typeof source === 'string')]
  for (const path of needed) if ((await on(path))?.path === mount.path) return
  yield warn(
    'mount',
    name,
    `is on what is mounted at ${mount.path}: without it, backups would go to the disk beneath`,
    `Say \`mountPoint: ${mount.path}\` in destinations.${name}.`,
  )
}
