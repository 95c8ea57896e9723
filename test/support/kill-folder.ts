import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { openFilesystem } from '../../adapters/filesystem.ts'
import { scratch } from './cli.ts'
import { type KillPlace, makeWorlds } from './kill-place.ts'
import { startService } from './kill-schedule.ts'

/** A store in a folder, over which processes kill themselves at one of their calls of the file system. */
export async function openKillFolder(t: TestContext): Promise<KillPlace> {
  const folder = await scratch(t)
  const root = join(folder, 'store')
  const config = { provider: 'filesystem', root } as const
  return {
    name: 'filesystem',
    storage: await openFilesystem({ root }),
    folder,
    worlds: await makeWorlds(folder, 8, 300_000),
    create: { zstdFrameBytes: 128 * 1024 },
    run: ({ place, ...task }) =>
      startService({ ...task, config, folders: { store: root, place } }, join(folder, 'compiled')).ended,
    async pending(server) {
      const names = await readdir(join(root, server), { recursive: true })
      return names.filter((name) => name.includes('.millrace-tmp-')).length
    },
  }
}
