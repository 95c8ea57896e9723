import type { BigIntStats } from 'node:fs'
import { chmod, chown, lstat, mkdir, readdir, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { ifHad } from './archive/attributes.ts'
import { nsToTimeArgument } from './archive/entry.ts'
import { BackupError } from './errors.ts'
import { isThere, mountsIn, moveTo, type Place } from './place.ts'
import type { Staging } from './staging.ts'

type Kind = 'file' | 'folder' | 'symlink' | 'other'

/** What a name in the target is, seen without following it. */
async function kindOf(path: string): Promise<{ kind: Kind; stat: BigIntStats } | undefined> {
  try {
    const stat = await lstat(path, { bigint: true })
    const kind = stat.isFile() ? 'file' : stat.isDirectory() ? 'folder' : stat.isSymbolicLink() ? 'symlink' : 'other'
    return { kind, stat }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

function conflict(path: string, is: Kind, comes: Kind): BackupError {
  return new BackupError(
    'TARGET',
    `At ${path} there is a ${is}, and the snapshot has a ${comes} there: nothing was changed. Move it away, or ask to overwrite it (--overwrite).`,
  )
}

/**
 * Looks, before anything is fetched, whether entries can be merged into a target.
 * @param entries paths with slashes, relative to it; a folder before what is in it.
 * @throws BackupError TARGET where the target has something of another type.
 */
export async function checkMerge(
  place: Place,
  entries: AsyncIterable<{ path: string; type: string }> | Iterable<{ path: string; type: string }>,
): Promise<void> {
  for await (const { path, type } of entries) {
    const comes = type === 'dir' ? 'folder' : type === 'symlink' ? 'symlink' : 'file'
    const found = await kindOf(join(place.path, path))
    if (found && found.kind !== comes) throw conflict(join(place.path, path), found.kind, comes)
  }
}

/**
 * Looks whether a tree can be merged into a target.
 * @throws BackupError TARGET where the types differ and nothing may be overwritten, or where a folder in the target is
 * another file system.
 */
export async function checkTree(staging: Staging, place: Place): Promise<void> {
  const { dev } = await lstat(staging.path, { bigint: true })
  const mounts = await mountsIn(place.path)
  const overwrite = staging.record.job.overwrite === true
  // A bind mount has the same device number, and nothing can be renamed into it either.
  await check(staging.tree, place.path, overwrite, (path, stat) => stat.dev === dev && !mounts.includes(path))
}

/**
 * Moves what a tree holds into a target that stands, each name by one rename: it is the old or the new at every moment.
 * What only the target has stays. Symlinks of the target are never followed: they are replaced, like files. Can be
 * called again after a process died at any point of it.
 * @throws the file system's own error.
 */
export async function mergeTree(staging: Staging, place: Place): Promise<void> {
  let set = 0
  const { owners, modes } = staging.record.job
  const like: Like = { owners: owners !== false && process.getuid?.() === 0, modes: modes !== false }
  await move(staging.tree, place.path, like, async (path) => {
    await mkdir(staging.old, { recursive: true, mode: 0o700 })
    do set += 1
    while (await isThere(join(staging.old, String(set))))
    await moveTo(path, join(staging.old, String(set)))
  })
}

async function check(
  from: string,
  to: string,
  overwrite: boolean,
  isReached: (path: string, stat: BigIntStats) => boolean,
): Promise<void> {
  const { stat } = (await kindOf(to)) as { stat: BigIntStats }
  if (!isReached(to, stat)) {
    throw new BackupError(
      'TARGET',
      `The folder ${to} is another file system than the target's: nothing was changed. Restore it by itself, with its own target.`,
    )
  }
  for (const name of await readdir(from)) {
    const comes = (await kindOf(join(from, name))) as { kind: Kind }
    const is = await kindOf(join(to, name))
    if (!is) continue
    if (is.kind !== comes.kind && !overwrite) throw conflict(join(to, name), is.kind, comes.kind)
    if (is.kind === 'folder' && comes.kind === 'folder') {
      await check(join(from, name), join(to, name), overwrite, isReached)
    }
  }
}

/** What folders that are in both are given of the snapshot's. */
interface Like {
  owners: boolean
  modes: boolean
}

async function move(from: string, to: string, like: Like, aside: (path: string) => Promise<void>): Promise<void> {
  for (const name of await readdir(from)) {
    const [source, target] = [join(from, name), join(to, name)]
    const comes = (await kindOf(source)) as { kind: Kind; stat: BigIntStats }
    const is = await kindOf(target)
    if (comes.kind === 'folder' && is?.kind === 'folder') {
      await openFolder(source, comes.stat)
      await openFolder(target, is.stat)
      await move(source, target, like, aside)
      await setFolder(target, like, comes.stat, is.stat)
      continue
    }
    // A file is replaced by the rename itself; a folder, and what a folder replaces, cannot be.
    if (is && (is.kind === 'folder' || comes.kind === 'folder')) await aside(target)
    await moveTo(source, target)
  }
}

/** So that names can be moved out of it, or into it, by an owner who may not write to it. */
async function openFolder(path: string, { mode }: BigIntStats): Promise<void> {
  if (process.getuid?.() !== 0 && (mode & 0o300n) !== 0o300n) await chmod(path, (Number(mode) & 0o7777) | 0o700)
}

/** Gives a folder of the target what the snapshot's has, as far as there is such a thing: the tree's own has told of it. */
async function setFolder(path: string, like: Like, stat: BigIntStats, before: BigIntStats): Promise<void> {
  if (like.owners) await ifHad(chown(path, Number(stat.uid), Number(stat.gid)))
  await ifHad(chmod(path, Number(like.modes ? stat.mode : before.mode) & 0o7777))
  await ifHad(utimes(path, nsToTimeArgument(stat.atimeNs), nsToTimeArgument(stat.mtimeNs)))
}
