import { chmod, link, mkdir, rmdir, symlink, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type Meta, setFolder, setOpen, setSymlink } from './attributes.ts'
import type { ArchiveWarning } from './entry.ts'
import { FileWrites, type Piece, piecesOf, Slots } from './file-writes.ts'
import { CREATE_FLAGS, close, errnoOf, fsync, lstat, open, targetError, unsafe, writeAll } from './io.ts'
import { OwnNames, parentsOf } from './own-names.ts'
import type { TargetRights } from './rights.ts'
import { isNoLink, Shortfalls } from './shortfalls.ts'
import { SmallWrites } from './small-writes.ts'
import { syncFiles } from './sync-files.ts'

interface DeferredSymlink {
  target: string
  meta: Meta
}

/** Files that are under way at the same time. */
const PARALLEL_FILES = 16

/** Writes of large files under way at a time, of all files together. Each holds a piece of at most a frame. */
const WRITES_AT_ONCE = 2

/** Small files that are written one by one before a thread is begun for the others. */
const FEW_FILES = 32

export interface TargetOptions {
  /** Bring all that is written onto the disk, by `sync` and by `finish`. */
  durable?: boolean | undefined
  /** Small files after which the others are written in batches, on a thread of their own. */
  threadAfter?: number | undefined
  /** It may hold what an earlier run of the same restore wrote. */
  continued?: boolean | undefined
  /** Told of what the file system cannot hold. */
  onWarning?: ((warning: ArchiveWarning) => void) | undefined
}

/**
 * A folder that an archive is written into, and nothing beside it. Paths are relative, without `.`, `..` or empty
 * parts. The rules that keep it so:
 * - every parent is a real folder: made here, or seen by lstat, and remembered until something replaces it
 * - files are made anew (O_EXCL), after what stood there was removed: no old file is written into, and no name of it
 *   elsewhere changes
 * - symlinks are made at the end, when no file follows that could be written through one. They may point anywhere: a
 *   world may share folders with others, and making a link writes nothing where it points
 * - the modes and times of folders are set last, deepest first, so that a read-only folder can be filled, and through
 *   a descriptor that is no symlink's
 */
export class TargetFolder {
  readonly #root: string
  readonly #rights: TargetRights
  readonly #durable: boolean
  /** Files that may not be on the disk yet. */
  #unsynced: string[] = []
  readonly #known = new Set<string>()
  readonly #folders = new Map<string, Meta>()
  readonly #symlinks = new Map<string, DeferredSymlink>()
  readonly #writing = new Map<string, Promise<void>>()
  /** The thread that writes small files, once there were some. */
  #smallWrites: SmallWrites | undefined
  #smallFiles = 0
  readonly #threadAfter: number
  readonly #shortfalls: Shortfalls
  readonly #names: OwnNames
  #freed = (): void => {}
  readonly #slots = new Slots(WRITES_AT_ONCE)
  #failure: { error: unknown } | undefined

  /** @param rights - owners, and setuid, setgid and sticky bits, need root */
  constructor(root: string, rights: TargetRights, options: TargetOptions = {}) {
    const { durable = false, threadAfter = FEW_FILES, continued = false, onWarning } = options
    this.#root = root
    this.#rights = rights
    this.#durable = durable
    this.#threadAfter = threadAfter
    this.#shortfalls = new Shortfalls(onWarning)
    this.#names = new OwnNames(root, continued)
  }

  /** To be called before anything is written. */
  async look(): Promise<void> {
    await this.#names.look()
  }

  /** Makes a folder; its mode and time are set by finish. */
  async folder(path: string, meta: Meta): Promise<void> {
    await this.#claim(path)
    try {
      this.#folders.set(path, meta)
      if (this.#known.has(path)) return
      const absolute = join(this.#root, path)
      try {
        await mkdir(absolute, 0o700)
        this.#names.add(path)
      } catch (error) {
        if (errnoOf(error) !== 'EEXIST') throw error
        await this.#names.check(path)
        const stat = await lstat(absolute)
        if (!stat.isDirectory()) {
          await unlink(absolute)
          await mkdir(absolute, 0o700)
        } else if ((stat.mode & 0o700n) !== 0o700n) {
          // It has its last mode already, and is to be filled.
          await chmod(absolute, 0o700)
        }
      }
      this.#known.add(path)
    } catch (error) {
      throw targetError(path, error)
    }
  }

  /** Starts to write a small file; a failure comes out of a later call. Waits while enough others are under way. */
  async smallFile(path: string, meta: Meta, data: Buffer): Promise<void> {
    await this.#claim(path)
    const batches = ++this.#smallFiles > this.#threadAfter ? this.#batches() : undefined
    // What its owner may not read cannot be opened again, to be brought onto the disk with the others.
    if (batches?.isAlive && (!this.#durable || meta.mode & 0o400)) {
      await batches.add(path, meta, data)
      this.#throwFailure()
      return
    }
    await this.#room()
    this.#later(path, this.#writeSmall(path, meta, data))
  }

  async #writeSmall(path: string, meta: Meta, data: Buffer): Promise<void> {
    const fd = await this.#create(path)
    await this.#complete(path, fd, meta, () => writeAll(fd, data))
  }

  #batches(): SmallWrites {
    this.#smallWrites ??= new SmallWrites(this.#root, this.#rights, {
      written: (path) => {
        this.#names.add(path)
        if (this.#durable) this.#unsynced.push(path)
      },
      missed: (path, attributes) => this.#shortfalls.note(path, attributes),
      refused: (path, meta, data) => this.#later(path, this.#writeSmall(path, meta, Buffer.from(data))),
    })
    return this.#smallWrites
  }

  /**
   * Writes a file of any size; on failure nothing of it is left. It returns when all has been begun to be written; a
   * failure that comes after that comes out of a later call.
   */
  async largeFile(path: string, meta: Meta, pieces: AsyncIterable<Piece>): Promise<void> {
    await this.#claim(path)
    await this.#room()
    const fd = await this.#create(path).catch((error) => {
      throw targetError(path, error)
    })
    const writes = new FileWrites(fd, this.#slots)
    try {
      for await (const piece of pieces) {
        await writes.add(piece)
        this.#throwFailure()
      }
    } catch (error) {
      await writes.settle()
      await this.#abandon(path, fd)
      throw targetError(path, error)
    }
    this.#later(
      path,
      this.#complete(path, fd, meta, () => writes.finish()),
    )
  }

  /** Notes a symlink, to be made at the end. */
  async symlink(path: string, target: string, meta: Meta): Promise<void> {
    await this.#claim(path)
    if (this.#known.has(path)) this.#forget(path)
    this.#symlinks.set(path, { target, meta })
  }

  /**
   * Gives the file `target` another name, or copies it where the file system has no hard links.
   * @returns false when there is no such file
   * @throws BackupError UNSAFE_ARCHIVE when it is no regular file or stands behind a symlink
   */
  async hardLink(path: string, target: string, meta: Meta): Promise<boolean> {
    await this.drain()
    const twin = this.#symlinks.get(target)
    if (twin) {
      await this.symlink(path, twin.target, twin.meta)
      return true
    }
    try {
      for (const parent of parentsOf(target)) await this.#checkFolder(parent, path)
      if (!(await lstat(join(this.#root, target))).isFile()) throw unsafe(path, `links to ${target}, which is no file`)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false
      throw targetError(path, error)
    }
    await this.#claim(path)
    if (path === target) return true
    try {
      await this.#replacing(path, () => link(join(this.#root, target), join(this.#root, path)))
    } catch (error) {
      if (!isNoLink(error)) throw targetError(path, error)
      await this.#copy(path, target, meta)
      this.#shortfalls.link(path, `${path} is a copy of ${target} and no hard link to it`, error)
    }
    return true
  }

  async #copy(path: string, target: string, meta: Meta): Promise<void> {
    await this.largeFile(path, meta, piecesOf(join(this.#root, target)))
    await this.drain()
  }

  /** Waits for the small files under way. Throws the first failure. */
  async drain(): Promise<void> {
    await this.settle()
    this.#throwFailure()
  }

  /** Waits for the small files under way; never throws. */
  async settle(): Promise<void> {
    await this.#smallWrites?.idle()
    while (this.#writing.size > 0) await Promise.all(this.#writing.values())
  }

  /** Brings the files that were written since the last call onto the disk. None may be under way. */
  async sync(): Promise<void> {
    const written = this.#unsynced
    this.#unsynced = []
    await syncFiles(this.#root, (await this.#smallWrites?.sync(written)) ?? written)
  }

  /** Ends what it began: what is under way is not waited for. */
  async close(): Promise<void> {
    await this.#smallWrites?.close()
  }

  #isUnderWay(path: string): boolean {
    return this.#writing.has(path) || (this.#smallWrites?.has(path) ?? false)
  }

  /** Makes the symlinks, then gives the folders their modes and times. */
  async finish(): Promise<void> {
    await this.drain()
    await this.sync()
    for (const [path, deferred] of this.#symlinks) await this.#makeSymlink(path, deferred)
    const deepestFirst = [...this.#folders].sort(([a], [b]) => (a < b ? 1 : -1))
    for (const [path, meta] of deepestFirst) {
      try {
        this.#shortfalls.note(path, await setFolder(join(this.#root, path), meta, this.#rights, this.#durable))
      } catch (error) {
        throw targetError(path, error)
      }
    }
    this.#shortfalls.report()
  }

  async #makeSymlink(path: string, { target, meta }: DeferredSymlink): Promise<void> {
    const absolute = join(this.#root, path)
    try {
      // Not from memory: a symlink made before this one may have taken the place of a folder.
      for (const parent of parentsOf(path)) {
        if (!(await lstat(join(this.#root, parent))).isDirectory()) throw unsafe(path, `stands behind ${parent}`)
      }
      try {
        await this.#replacing(path, () => symlink(target, absolute))
      } catch (error) {
        if (!isNoLink(error)) throw error
        this.#shortfalls.link(path, `The symlink ${path} cannot be made here, and is left out`, error)
        return
      }
      this.#shortfalls.note(path, await setSymlink(absolute, meta, this.#rights))
    } catch (error) {
      throw targetError(path, error)
    }
  }

  /** Before anything is put at a path: real parents, nothing still being written there, no symlink to come. */
  async #claim(path: string): Promise<void> {
    this.#throwFailure()
    if (this.#isUnderWay(path)) await this.drain()
    this.#symlinks.delete(path)
    const slash = path.lastIndexOf('/')
    if (slash === -1 || this.#known.has(path.slice(0, slash))) return
    for (const parent of parentsOf(path)) {
      if (this.#known.has(parent)) continue
      if (this.#isUnderWay(parent)) await this.drain()
      try {
        await this.#checkFolder(parent, path)
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw targetError(path, error)
        await mkdir(join(this.#root, parent)).catch((cause: unknown) => {
          throw targetError(parent, cause)
        })
      }
      this.#known.add(parent)
    }
  }

  async #checkFolder(folder: string, path: string): Promise<void> {
    if (this.#symlinks.has(folder)) throw unsafe(path, `stands behind the symlink ${folder}`)
    const stat = await lstat(join(this.#root, folder))
    if (stat.isSymbolicLink()) throw unsafe(path, `stands behind the symlink ${folder}`)
    if (!stat.isDirectory()) throw unsafe(path, `stands below ${folder}, which is no folder`)
  }

  #forget(path: string): void {
    const below = `${path}/`
    for (const set of [this.#known, this.#folders]) {
      for (const key of set.keys()) if (key === path || key.startsWith(below)) set.delete(key)
    }
  }

  /** Makes something at a path; if anything stands there, it is removed first (a folder only when it is empty). */
  async #replacing<T>(path: string, make: () => Promise<T>): Promise<T> {
    try {
      const made = await make()
      this.#names.add(path)
      return made
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error
    }
    await this.#names.check(path)
    const absolute = join(this.#root, path)
    if ((await lstat(absolute)).isDirectory()) {
      await rmdir(absolute).catch((cause: unknown) => {
        throw errnoOf(cause) === 'ENOTEMPTY' ? unsafe(path, 'would replace a folder that is not empty') : cause
      })
      this.#forget(path)
    } else {
      await unlink(absolute)
    }
    return await make()
  }

  /** Waits while enough files are under way. */
  async #room(): Promise<void> {
    while (this.#writing.size >= PARALLEL_FILES) {
      await new Promise<void>((resolve) => {
        this.#freed = resolve
      })
    }
    this.#throwFailure()
  }

  #later(path: string, file: Promise<void>): void {
    const work = file
      .catch((error: unknown) => {
        this.#failure ??= { error: targetError(path, error) }
      })
      .finally(() => {
        this.#writing.delete(path)
        this.#freed()
      })
    this.#writing.set(path, work)
  }

  #create(path: string): Promise<number> {
    return this.#replacing(path, () => open(join(this.#root, path), CREATE_FLAGS, 0o600))
  }

  /** Brings a file to its end, or removes it. */
  async #complete(path: string, fd: number, meta: Meta, written: () => Promise<void>): Promise<void> {
    try {
      await written()
      this.#shortfalls.note(path, await setOpen(fd, meta, this.#rights))
      if (this.#durable) {
        // What its owner may not read cannot be opened again.
        if (meta.mode & 0o400) this.#unsynced.push(path)
        else await fsync(fd)
      }
    } catch (error) {
      await this.#abandon(path, fd)
      throw error
    }
    try {
      // Some file systems report a full disk only now.
      await close(fd)
    } catch (error) {
      await this.#remove(path)
      throw error
    }
  }

  async #abandon(path: string, fd: number): Promise<void> {
    await close(fd).catch(() => {})
    await this.#remove(path)
  }

  async #remove(path: string): Promise<void> {
    await unlink(join(this.#root, path)).catch(() => {})
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error
  }
}
