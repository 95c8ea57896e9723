import { execFileSync } from 'node:child_process'
import fs from 'node:fs'

/** Why a test that needs a file system of its own cannot run here; false when it can. */
export const NO_MOUNT = canMount() ? false : 'a tmpfs cannot be mounted here'

function canMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false
  const folder = fs.mkdtempSync('/tmp/millrace-mount-')
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { stdio: 'ignore' })
    execFileSync('umount', [folder])
    return true
  } catch {
    return false
  } finally {
    fs.rmdirSync(folder)
  }
}

/** Works with a file system of a size in MiB at a folder; `grow` gives it another size. */
export async function mounted(
  folder: string,
  mib: number,
  work: (grow: (mib: number) => void) => Promise<void>,
): Promise<void> {
  fs.mkdirSync(folder, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', folder])
  const grow = (size: number) => execFileSync('mount', ['-o', `remount,size=${size}m`, folder])
  // Before the test's own end, which removes the folder.
  await work(grow).finally(() => execFileSync('umount', [folder]))
}
