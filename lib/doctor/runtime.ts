import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, stat, statfs } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { dirname } from 'node:path'
import zlib from 'node:zlib'
import { type Finding, type FindingState, fail, ok, warn } from './finding.ts'

const MiB = 2 ** 20
/** What a backup to S3 takes at most, whatever it backs up. */
export const MEMORY_BYTES = 220 * MiB
const STATE_ROOM_BYTES = 64 * MiB
const TEMP_ROOM_BYTES = 64 * MiB
const ZSTD_COMMAND_MS = 10_000
const ANOTHER_STATE = '`stateFolder` in the config or MILLRACE_STATE_DIR names another.'
const STATE_NEEDED = `A backup with \`resume\` fails without it. ${ANOTHER_STATE}`
const STATE_SPARED = `Other backups go on without it, and have no history. ${ANOTHER_STATE}`
const TEMP_SPARED = 'Only `verify --restore-test` needs it; --scratch or TMPDIR names another.'

/**
 * Looks at what millrace runs on.
 * @param stateFolder where this machine keeps what it knows between runs.
 * @param resumes whether there are backups with `resume`, whose journals are in it.
 */
export async function* checkRuntime(stateFolder: string, resumes: boolean): AsyncGenerator<Finding> {
  yield checkNode(process.versions.node)
  yield checkZstd()
  yield await checkZstdCommand()
  yield checkMemory(process.availableMemory(), Math.min(totalmem(), process.constrainedMemory() || Infinity))
  const state = await checkFolder('state folder', stateFolder, STATE_ROOM_BYTES)
  yield resumes ? toldOf(state, state.state, STATE_NEEDED) : toldOf(state, 'warn', STATE_SPARED)
  yield toldOf(await checkFolder('temporary folder', tmpdir(), TEMP_ROOM_BYTES), 'warn', TEMP_SPARED)
}

/** @param version as in `process.versions.node`. */
export function checkNode(version: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 15)) return ok('node', undefined, version)
  return fail('node', undefined, `${version} is too old`, 'Install Node 22.15 or newer from https://nodejs.org.')
}

/** What is wrong with a folder, as grave as it is for backups, and what that is. */
function toldOf(found: Finding, state: FindingState, without: string): Finding {
  if (found.state === 'ok') return found
  return { ...found, state, advice: `${found.advice} ${without}` }
}

function checkZstd(): Finding {
  try {
    const text = Buffer.from('millrace '.repeat(100))
    if (zlib.zstdDecompressSync(zlib.zstdCompressSync(text)).equals(text)) return ok('zstd', undefined, 'native')
  } catch {
    // It is not in this Node.
  }
  return fail(
    'zstd',
    undefined,
    'this Node has no zstd',
    'Install a Node that is built with it: those of nodejs.org are.',
  )
}

async function checkZstdCommand(): Promise<Finding> {
  const version = await new Promise<string | undefined>((resolve) => {
    execFile('zstd', ['--version'], { timeout: ZSTD_COMMAND_MS }, (error, stdout) =>
      resolve(error ? undefined : (/v(\d[\d.]*)/.exec(stdout)?.[1] ?? 'there')),
    )
  })
  // Nothing is wrong without it.
  return ok('zstd command', undefined, version ?? 'not there; only long-distance matching (`long`) needs it')
}

/**
 * @param available bytes that a new process could take now.
 * @param limit bytes that this machine, or the group that the process is in, has in all.
 */
export function checkMemory(available: number, limit: number): Finding {
  const said = `${showBytes(available)} available of ${showBytes(limit)}`
  if (limit < MEMORY_BYTES) {
    return fail(
      'memory',
      undefined,
      said,
      `A backup takes up to ${showBytes(MEMORY_BYTES)}: raise the limit of this machine or container.`,
    )
  }
  if (available < MEMORY_BYTES) {
    return warn(
      'memory',
      undefined,
      said,
      `A backup takes up to ${showBytes(MEMORY_BYTES)}: end something, or add swap.`,
    )
  }
  return ok('memory', undefined, `${said}; a backup takes up to ${showBytes(MEMORY_BYTES)}`)
}

/** Looks whether a folder, or the nearest above it that is there, can be written and has room. Nothing is written. */
export async function checkFolder(check: string, folder: string, neededBytes: number): Promise<Finding> {
  let at = folder
  for (;;) {
    try {
      const found = await stat(at)
      if (!found.isDirectory())
        return fail(check, folder, `${at} is not a folder`, 'Remove it, or name another folder.')
      await access(at, constants.W_OK | constants.X_OK)
      break
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOTDIR')
        return fail(check, folder, 'a file stands in its way', 'Remove it, or name another folder.')
      if (code !== 'ENOENT' || at === dirname(at)) {
        return fail(check, folder, `cannot be written (${code})`, adviceFor(code, folder, at))
      }
      at = dirname(at)
    }
  }
  const { bavail, bsize } = await statfs(at)
  const free = bavail * bsize
  const said = `${at === folder ? 'can be written' : 'can be made'}; ${showBytes(free)} free`
  if (free >= neededBytes) return ok(check, folder, said)
  if (free > 0) return warn(check, folder, said, 'Make room on that disk.')
  return fail(check, folder, 'its disk is full', 'Make room on that disk.')
}

/** @param at the nearest that is there. */
function adviceFor(code: string | undefined, folder: string, at: string): string {
  if (code === 'EROFS') return 'Its file system is read-only: mount it for writing, or name another folder.'
  // Whose folder the one above is has its reasons: it may be / or another user's home.
  if (at !== folder) return 'Make it, and give it to the user that runs millrace (`chown`), or name another folder.'
  return `Give it to the user that runs millrace: \`chown\`, \`chmod u+rwx ${at}\`.`
}

/** A size, as findings say it. */
export function showBytes(bytes: number): string {
  if (bytes >= 10 * 1024 * MiB) return `${Math.round(bytes / MiB / 1024)} GiB`
  return bytes >= MiB ? `${Math.round(bytes / MiB)} MiB` : `${Math.ceil(bytes / 1024)} KiB`
}
