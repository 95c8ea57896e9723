import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** A path of the config: relative to its folder; `~/` is the home of who runs it, as no shell is there to say so. */
export function pathFrom(folder: string, path: string): string {
  return /^~[/\\]/.test(path) ? join(homedir(), path.slice(2)) : resolve(folder, path)
}
