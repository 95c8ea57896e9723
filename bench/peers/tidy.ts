import { execFileSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { benchFolder, endLines, ROOT, startS3 } from '../support.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Runs a bench in a new folder. However it ends, by a signal too, its lines of bash are ended, the folder is removed,
 * and what was handed to `later` is done, the last first.
 */
export async function tidily(
  work: (folder: string, later: (undo: () => void) => void) => Promise<void>,
): Promise<void> {
  const folder = benchFolder()
  const undos: (() => void)[] = []
  const tidy = () => {
    endLines()
    // What is being ended may write a little longer.
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
    for (const undo of undos.splice(0).reverse()) undo()
  }
  const stop = (signal: NodeJS.Signals) => {
    tidy()
    process.exit(128 + constants.signals[signal])
  }
  for (const signal of SIGNALS) process.once(signal, stop)
  try {
    await work(folder, (undo) => undos.push(undo))
  } finally {
    tidy()
    for (const signal of SIGNALS) process.off(signal, stop)
  }
}

/** Brings up the S3 server of the tests; one that was interrupted on its way up is taken down again. @returns its end. */
export function startS3Tidily(): () => void {
  const state = process.env.MILLRACE_CEPH_DIR ?? join(ROOT, '.ceph')
  const others = existsSync(state)
  try {
    return startS3().stop
  } catch (error) {
    if (!others) execFileSync('bash', [join(ROOT, 'test/servers/ceph-down.sh')], { stdio: 'ignore' })
    throw error
  }
}
