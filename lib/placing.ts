import { renameSync } from 'node:fs'
import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { applyFolder } from './archive/extract.ts'
import { BackupError } from './errors.ts'
import { checkTree, mergeTree } from './merging.ts'
import { contentOf, isThere, moveTo, type Place } from './place.ts'
import { type Staging, syncFolder } from './staging.ts'

/** How a tree comes to its place: where nothing is, instead of what is there, or among it. */
export type PlaceMode = 'new' | 'overwrite' | 'merge'

/**
 * Puts a whole tree in place, and removes its staging folder. What stood there is removed only when the new one is
 * there. A process that dies in between leaves the old or the new, or, for the moment between two renames, both in the
 * staging folder: `finishPlacing` goes on from any of these.
 * @param root the mode and time that the target is to have where the tree's own cannot become the target's.
 * @throws BackupError TARGET. Where what stood there could not be put back either, both stay in the staging folder.
 */
export async function putInPlace(
  staging: Staging,
  place: Place,
  mode: PlaceMode,
  root?: { mode: number; mtime: number },
): Promise<void> {
  let whatFails: string | undefined
  try {
    if (mode === 'merge') {
      await checkTree(staging, place)
      await staging.note({ phase: 'merging' })
      await mergeTree(staging, place)
    } else if (place.inside) {
      const names = await contentOf(place)
      await staging.note({ phase: 'aside', names, ...(root ? { root } : {}) })
      await swapNames(staging, place)
    } else {
      await staging.note({ phase: 'placing' })
      swap(staging, place)
      whatFails = 'the disk does not confirm it'
      await syncFolder(place.around)
    }
    whatFails = `${staging.path}, which is of no more use, cannot be removed`
    await staging.discard()
  } catch (cause) {
    if (cause instanceof BackupError && !whatFails) throw cause
    const what = whatFails
      ? `What was restored is in place at ${place.path}, but ${whatFails}`
      : `What was restored cannot be put in place at ${place.path}`
    throw new BackupError('TARGET', `${what}: ${(cause as Error).message}.`, { cause })
  }
}

/**
 * Finishes what a restore had begun to put in place when its process ended.
 * @returns true when the tree is in place now and the folder gone; false when nothing at the target had been touched
 * yet: the folder is as one that is being built.
 * @throws BackupError TARGET where something new stands at the target, which nobody asked to replace.
 */
export async function finishPlacing(staging: Staging, place: Place): Promise<boolean> {
  const { phase } = staging.record
  // A merge is finished by a restore of the same alone: any other is meant to change what it would finish.
  if (phase === 'building' || phase === 'merging') return false
  const whole = await isThere(staging.tree)
  if (place.inside || phase === 'aside') {
    if (phase === 'aside' && !(await isThere(staging.old))) {
      await staging.note({ phase: 'building' })
      return false
    }
    if (whole) await swapNames(staging, place)
  } else if (whole) {
    const old = await isThere(staging.old)
    const there = await isThere(place.path)
    if (there && !old) {
      await staging.note({ phase: 'building' })
      return false
    }
    if (there) {
      throw new BackupError(
        'TARGET',
        `A restore was stopped while it replaced ${place.path}, and something new stands there now. What was restored is ${staging.tree}, what it replaced is ${staging.old}: move what you want to keep, and remove ${staging.path}.`,
      )
    }
    renameSync(staging.tree, place.path)
    await syncFolder(place.around)
  }
  await staging.discard()
  return true
}

/** The two renames are one after the other, without anything in between: no other moment has nothing at the target. */
function swap({ tree, old }: Staging, { path }: Place): void {
  let aside = false
  try {
    try {
      renameSync(path, old)
      aside = true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    renameSync(tree, path)
  } catch (error) {
    if (aside) renameSync(old, path)
    throw error
  }
}

/** Inside a target it is name by name: all that is old first, then all that is new. Can be called again at any point. */
async function swapNames(staging: Staging, place: Place): Promise<void> {
  const { tree, old, record } = staging
  if (record.phase === 'aside') {
    await mkdir(old, { recursive: true, mode: 0o700 })
    for (const name of record.names ?? []) {
      const from = join(place.path, name)
      if (await isThere(from)) await moveTo(from, join(old, name))
    }
    await staging.note({ phase: 'placing' })
  }
  for (const name of await readdir(tree)) {
    const to = join(place.path, name)
    if (await isThere(to)) {
      throw new BackupError(
        'TARGET',
        `Something new stands at ${to}, while a restore was putting its own there. What is restored is in ${tree}: move one of the two away, and restore again.`,
      )
    }
    await moveTo(join(tree, name), to)
  }
  if (staging.record.root) await applyFolder(place.path, staging.record.root)
  await syncFolder(place.path)
  await rmdir(tree)
}
