import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Storage } from '../../adapters/storage.ts'
import type { CreateOptions } from '../../lib/index.ts'
import type { ServiceDone, ServiceTask, ServiceWork } from './kill-schedule.ts'
import { seededBytes } from './random.ts'

export type Kind = ServiceWork['kind']
export const KINDS: readonly Kind[] = ['backup', 'prune', 'restore']

/** One store, and how processes are killed over it. */
export interface KillPlace {
  /** For the line that is printed. */
  name: string
  /** The store as the next run sees it: past whatever stands before it. */
  storage: Storage
  /** A folder of the test's own. */
  folder: string
  worlds: readonly [string, string]
  create: CreateOptions
  /** Does the work in a process of its own, and kills it at the moment. @returns null when it was killed. */
  run(task: Omit<ServiceTask, 'config' | 'folders'> & { place: string }): Promise<ServiceDone | null>
  /** How many uploads of a server were begun, and neither finished nor cancelled. */
  pending(server: string): Promise<number>
}

/** Counts of what was seen, by name. */
export type Counts = Map<string, number>

/** Two worlds of one size that differ in every file. */
export async function makeWorlds(folder: string, files: number, largeBytes: number): Promise<[string, string]> {
  const worlds: [string, string] = [join(folder, 'world-a'), join(folder, 'world-b')]
  for (const [index, world] of worlds.entries()) {
    await mkdir(join(world, 'region'), { recursive: true })
    for (let at = 0; at < files; at += 1) {
      const bytes = at % 4 === 0 ? largeBytes : 2000 + at
      await writeFile(join(world, 'region', `r.${at}.mca`), seededBytes(bytes, index * 1000 + at))
    }
  }
  return worlds
}
