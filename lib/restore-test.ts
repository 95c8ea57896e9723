import type { BigIntStats } from 'node:fs'
import { lstat, mkdtemp, opendir, readlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Storage } from '../adapters/storage.ts'
import type { IndexEntry, IndexHead, Progress, ReadKeys } from '../transforms/index.ts'
import { nsToMs } from './archive/entry.ts'
import { explain } from './archive/io.ts'
import type { Snapshot } from './catalog.ts'
import { BackupError } from './errors.ts'
import { type OpenObject, openObject } from './open-object.ts'
import { removeTree } from './remove-tree.ts'
import { type Restored, restoreSnapshot } from './restore.ts'

const DIFFERENCES_SHOWN = 20
/** Times are set to a quarter of a microsecond, and come back from some file systems in ms. */
const TIME_SLACK_MS = 2
const TYPES = { file: 0o100000, link: 0o100000, dir: 0o040000, symlink: 0o120000 } as const
const TYPE_BITS = 0o170000

export interface RestoreTestOptions {
  /** Where the scratch folder is made; the system's temporary folder if left out. */
  scratch?: string | undefined
  allowPlain?: boolean | undefined
  allowRenamed?: boolean | undefined
  onProgress?: ((progress: Progress) => void) | undefined
  signal?: AbortSignal | undefined
}

export interface RestoreTest {
  restored: Restored
  /** Entries compared with the index. */
  compared: number
  /** What is not as the index says, the first 20, a sentence each. */
  differences: string[]
  /** How many there are in all. */
  different: number
}

async function scratchIn(around: string): Promise<string> {
  try {
    return await mkdtemp(join(around, 'millrace-restore-test-'))
  } catch (cause) {
    throw new BackupError('TARGET', `${explain(`Cannot make a scratch folder in ${around}`, cause)}.`, { cause })
  }
}

/**
 * Restores a snapshot into a scratch folder, compares every entry with the index (type, size, mode, time, link, and
 * the owner when run as root), and removes the folder again.
 * @throws what `restoreSnapshot` throws, TARGET for a scratch folder without room, or that cannot be made.
 */
export async function testRestore(
  storage: Storage,
  snapshot: Snapshot,
  keys: ReadKeys | undefined,
  options: RestoreTestOptions,
): Promise<RestoreTest> {
  const folder = await scratchIn(options.scratch ?? tmpdir())
  try {
    const tree = join(folder, 'tree')
    const { allowPlain, allowRenamed, onProgress, signal } = options
    const allowed = { allowPlain, allowRenamed, allowUnverified: true }
    const restored = await restoreSnapshot(storage, snapshot, keys, tree, { ...allowed, onProgress, signal })
    const object = await openObject(storage, snapshot, { ...allowed, keys, signal })
    try {
      return { restored, ...(await compare(tree, object)) }
    } finally {
      object.close()
    }
  } finally {
    await removeTree(folder)
  }
}

async function compare(tree: string, { head, seekable }: OpenObject): Promise<Omit<RestoreTest, 'restored'>> {
  const found = { compared: 0, differences: [] as string[], different: 0 }
  const note = (what: string[]) => {
    found.compared += 1
    found.different += what.length
    found.differences.push(...what.slice(0, DIFFERENCES_SHOWN - found.differences.length))
  }
  if (!head) return found
  if (head.kind === 'raw') {
    note(await differencesOf(tree, 'the file', { ...rootOf(head), type: 'file', size: head.bytes }))
    return found
  }
  note(await differencesOf(tree, 'the folder itself', { ...rootOf(head), type: 'dir', size: 0 }))
  if (!seekable) return found
  let entries = 0
  for await (const entry of seekable.entries()) {
    if (entry.superseded) continue
    entries += 1
    note(await differencesOf(join(tree, entry.path), JSON.stringify(entry.path), entry, tree))
  }
  const there = await countEntries(tree)
  if (there !== entries) note([`there are ${there} entries, and the index has ${entries}`])
  return found
}

type Expected = Pick<IndexEntry, 'type' | 'size'> & Partial<IndexEntry>

function rootOf({ mode, mtime }: IndexHead): { mode?: number; mtime?: number } {
  return { ...(mode === undefined ? {} : { mode }), ...(mtime === undefined ? {} : { mtime }) }
}

/** @param root the folder that the paths of hard links are in. */
async function differencesOf(path: string, name: string, expected: Expected, root = ''): Promise<string[]> {
  let stat: BigIntStats
  try {
    stat = await lstat(path, { bigint: true })
  } catch (error) {
    return [`${name} is not there: ${(error as Error).message}`]
  }
  const { type, size, mode, mtime, uid, gid, link } = expected
  const asRoot = process.getuid?.() === 0
  const found: string[] = []
  const check = (what: string, is: unknown, shouldBe: unknown) => {
    if (is !== shouldBe) found.push(`${name} has the ${what} ${is}, and the index says ${shouldBe}`)
  }
  const twin =
    type === 'link' ? await lstat(join(root, link as string), { bigint: true }).catch(() => undefined) : undefined
  if (type === 'link' && twin?.isSymbolicLink()) return []
  check('type', (Number(stat.mode) & TYPE_BITS).toString(8), TYPES[type].toString(8))
  if (type === 'file') check('size', Number(stat.size), size)
  if (type === 'link') check('inode', stat.ino, twin?.ino)
  if (type === 'symlink') check('link', await readlink(path).catch(() => undefined), link)
  const bits = asRoot && uid !== undefined ? 0o7777 : 0o777
  // A hard link has the attributes of the file that it shares, whichever entry set them.
  if (mode !== undefined && type !== 'symlink' && type !== 'link') check('mode', Number(stat.mode) & bits, mode & bits)
  if (mtime !== undefined && type !== 'link' && Math.abs(nsToMs(stat.mtimeNs) - mtime) > TIME_SLACK_MS) {
    check('time', nsToMs(stat.mtimeNs), mtime)
  }
  if (asRoot && uid !== undefined && gid !== undefined && type !== 'link') {
    check('owner', `${stat.uid}:${stat.gid}`, `${uid}:${gid}`)
  }
  return found
}

async function countEntries(folder: string): Promise<number> {
  let count = 0
  const folders: string[] = []
  // Not readdir, which makes an object of every entry before the first is seen.
  for await (const entry of await opendir(folder)) {
    count += 1
    if (entry.isDirectory()) folders.push(entry.name)
  }
  for (const name of folders) count += await countEntries(join(folder, name))
  return count
}
