import { accessSync } from 'node:fs'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'

/** The threads make garbage, and keep nothing. */
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 } as const

/**
 * Begins a thread, where one can be had: a bundler leaves its module out, Node's permissions may allow none, and
 * no thread begins in a folder that is gone.
 * @param from the URL of the module that asks (`import.meta.url`).
 * @param name of the thread's own module, beside that one and without its extension: .ts where it runs from the
 * sources, .js where it was built.
 * @param workerData what the thread is given at its start.
 * @returns undefined where there is none to be had: the work is done on this thread then.
 */
export function beginThread(from: string, name: string, workerData?: unknown): Worker | undefined {
  try {
    const script = new URL(`./${name}${extname(new URL(from).pathname)}`, from)
    accessSync(script)
    // In a folder that has been removed, as of an old world, every thread ends with ENOENT before it begins.
    process.cwd()
    return new Worker(script, { workerData, execArgv: [], resourceLimits: THREAD_LIMITS })
  } catch {
    return undefined
  }
}
