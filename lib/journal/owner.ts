import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import type { JournalRun } from './records.ts'

/** Whether a process that wrote to a journal is at work; `unknown`: it cannot be told from here. */
export type OwnerState = 'alive' | 'dead' | 'unknown'

/** This process, as a journal knows it. */
export async function thisRun(lease: string | null): Promise<JournalRun> {
  const { pid } = process
  const { boot, machine, space } = await here()
  return { host: hostname(), machine, pid, born: await bornAt(pid, boot), boot, space, since: Date.now(), lease }
}

/**
 * Whether a process still lives. `dead` is said only where it is certain: of the same machine, by the same counting of
 * processes, and either it is gone or the machine was started since.
 */
export async function ownerState(run: JournalRun): Promise<OwnerState> {
  const { boot, machine, space } = await here()
  if (run.host !== hostname() || run.machine !== machine) return 'unknown'
  if (boot === null || run.boot === null || run.born === null) return 'unknown'
  if (boot !== run.boot) return machine === null ? 'unknown' : 'dead'
  // Another container's: its processes have other numbers.
  if (space === null || space !== run.space) return 'unknown'
  if (!(await isThere(run.pid))) return 'dead'
  const now = await bornAt(run.pid, boot)
  if (now === null) return 'unknown'
  return now === run.born ? 'alive' : 'dead'
}

/** Whether it is the process that asks. */
export async function isThisProcess(run: JournalRun): Promise<boolean> {
  const { pid, born, space, host, machine } = await thisRun(null)
  const isSame = run.pid === pid && run.host === host && run.machine === machine
  return isSame && born !== null && run.born === born && run.space === space
}

async function isThere(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

async function here(): Promise<Pick<JournalRun, 'boot' | 'machine' | 'space'>> {
  const [boot, machine, space] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(textOrNull, () => null),
    readFile('/etc/machine-id', 'utf8').then(textOrNull, () => null),
    readlink('/proc/self/ns/pid').catch(() => null),
  ])
  return { boot, machine, space }
}

function textOrNull(text: string): string | null {
  return text.trim() || null
}

/** proc(5), /proc/pid/stat, field 22: ticks since the boot. */
async function bornAt(pid: number, boot: string | null): Promise<string | null> {
  try {
    const line = await readFile(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in brackets, which may hold anything.
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
    // A killed process that nobody has waited for yet still has its number.
    if (fields[0] === 'Z' || fields[0] === 'X') return 'ended'
    return boot === null ? null : `${boot}/${fields[19]}`
  } catch {
    return null
  }
}
