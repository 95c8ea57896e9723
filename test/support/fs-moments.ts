import fs from 'node:fs'
import fsPromises, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { basename, dirname, relative } from 'node:path'
import type { Moment } from './kill-schedule.ts'

type Call = (...args: unknown[]) => unknown
type Calls = Record<string, Call>

/** What changes something on the disk: between two of them a kill finds the same as after the first. */
const BY_PROMISE = ['rename', 'link', 'unlink', 'mkdir', 'rmdir', 'rm', 'symlink']
const OF_HANDLES = ['write', 'writev', 'writeFile', 'sync']
const BY_CALLBACK = ['write', 'fsync']
/** Of these the second path is what becomes of the first. */
const TO_A_NAME = ['rename', 'link', 'symlink', 'renameSync']

/**
 * Counts the calls of this process that change the file system beneath the folders given, by names such as `object
 * rename`, and kills the process with SIGKILL at the moment given: before the call is made, when it is under way, or
 * when it is done and nobody has been told yet.
 * @returns how often each was called so far.
 */
export function watchFileSystem(folders: Folders, moment: Moment | undefined): Map<string, number> {
  const counts = new Map<string, number>()
  const namer = new Namer(folders)
  const paths = new Map<number, string>()

  /** @returns when in this call to die; undefined: not in this one. */
  const due = (call: string, path: unknown): Moment['when'] | undefined => {
    const name = typeof path === 'string' ? namer.nameOf(call, path) : undefined
    if (name === undefined) return undefined
    const nth = counts.get(name) ?? 0
    counts.set(name, nth + 1)
    return moment?.at === name && moment.nth === nth ? moment.when : undefined
  }
  const underWay = () => {
    const end = performance.now() + (moment?.share ?? 0) * 0.3
    while (performance.now() < end);
    die()
  }
  const promised = async (call: string, path: unknown, work: () => unknown) => {
    const when = due(call, path)
    if (when === 'before') die()
    const working = work()
    if (when === 'within') underWay()
    try {
      return await working
    } finally {
      if (when === 'after') die()
    }
  }

  const promises = fsPromises as unknown as Calls
  for (const call of BY_PROMISE) {
    const real = promises[call] as Call
    promises[call] = (...args) => promised(call, TO_A_NAME.includes(call) ? args[1] : args[0], () => real(...args))
  }
  const openHandle = promises.open as Call
  promises.open = async (...args) => {
    const [path, flags] = args
    const open = () => openHandle(...args)
    const handle = (await (flags === 'wx' || flags === 'w' ? promised('open', path, open) : open())) as FileHandle
    const methods = handle as unknown as Calls
    for (const call of OF_HANDLES) {
      const real = (methods[call] as Call).bind(handle)
      methods[call] = (...given) => promised(call, path, () => real(...given))
    }
    return handle
  }

  const callbacks = fs as unknown as Calls
  const byCallback = (call: string, pathOf: (args: unknown[]) => unknown, onResult?: (...all: unknown[]) => void) => {
    const real = callbacks[call] as Call
    callbacks[call] = (...args) => {
      const told = args.pop() as Call
      const when = due(call, pathOf(args))
      if (when === 'before') die()
      const made = real(...args, (...results: unknown[]) => {
        if (when === 'after') die()
        onResult?.(args[0], ...results)
        told(...results)
      })
      if (when === 'within') underWay()
      return made
    }
  }
  byCallback(
    'open',
    ([path, flags]) => (Number(flags) & fs.constants.O_CREAT ? path : undefined),
    (path, error, fd) => error ?? paths.set(fd as number, path as string),
  )
  for (const call of BY_CALLBACK) byCallback(call, ([fd]) => paths.get(fd as number))

  // Whole or not at all: there is no moment within.
  const renameSync = callbacks.renameSync as Call
  callbacks.renameSync = (...args) => {
    const when = due('renameSync', args[1])
    if (when === 'before') die()
    try {
      renameSync(...args)
    } finally {
      if (when) die()
    }
  }
  syncBuiltinESMExports()
  return counts
}

export interface Folders {
  /** Of the store, where it is a folder. */
  store: string | undefined
  /** The folder that the target of a restore is in. */
  place: string | undefined
}

/** Says what a path is to the service. */
class Namer {
  readonly #folders: Folders
  /** What a temporary file of the store's becomes. */
  readonly #temporary = new Map<string, string>()
  #objectIsThere = false

  constructor(folders: Folders) {
    this.#folders = folders
  }

  nameOf(call: string, path: string): string | undefined {
    const { store, place } = this.#folders
    const what = within(store, path) ? this.#inStore(path) : within(place, path) ? this.#inPlace(path) : undefined
    if (call === 'rename' && what === 'object') this.#objectIsThere = true
    // Each write to a store asks for its folders, which are there.
    if (what === undefined || (call === 'mkdir' && within(store, path))) return undefined
    return `${what} ${call}`
  }

  #inStore(path: string): string {
    if (path.includes('/.lease')) return 'lease'
    if (path.endsWith('.sha256')) return 'companion'
    if (path.endsWith('.mlr')) return 'object'
    if (!basename(path).startsWith('.millrace-tmp-')) return 'folder'
    const what = this.#temporary.get(path) ?? (this.#objectIsThere ? 'companion' : 'object')
    this.#temporary.set(path, what)
    return what
  }

  #inPlace(path: string): string {
    const [first = '', second, third] = relative(this.#folders.place as string, path).split('/')
    if (first === 'target') return 'target'
    if (second === undefined) return 'staging'
    if (second === 'tree') return third === undefined ? 'tree' : 'file'
    return second === 'old' ? 'old' : 'record'
  }
}

function within(folder: string | undefined, path: string): boolean {
  return folder !== undefined && (path.startsWith(`${folder}/`) || path === folder) && dirname(path) !== path
}

function die(): void {
  process.kill(process.pid, 'SIGKILL')
}
