import { homedir } from 'node:os'
import { join } from 'node:path'

/**
 * Where a machine keeps what it knows between runs: MILLRACE_STATE_DIR, else `millrace` in the folder where the system
 * keeps a user's state. All in it can be lost without harm, but for the marks that saving is off.
 */
export function defaultStateFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.MILLRACE_STATE_DIR) return env.MILLRACE_STATE_DIR
  if (process.platform === 'win32' && env.LOCALAPPDATA) return join(env.LOCALAPPDATA, 'millrace')
  return join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'millrace')
}
