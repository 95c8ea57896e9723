import { readdirSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

const SHOWN = 50

/** A path as somebody types it, made absolute; `~` is the home. */
export function typedPath(typed: string): string {
  return resolve(/^~(?=$|[/\\])/.test(typed) ? homedir() + typed.slice(1) : typed)
}

/**
 * What a path that is being typed may be meant to be.
 * @param initial what stood there already. A whole path behind it, as it was pasted or typed, counts by itself.
 * @returns absolute paths: first the one that is typed, when it is there, and what begins with it only where it is not,
 * or where a slash at its end asks for what is in it. So what is typed in full is always the first.
 */
export function pathChoices(typed: string, initial = ''): string[] {
  const behind = initial !== '' && typed.startsWith(initial) ? typed.slice(initial.length) : ''
  if (/^(?:[/\\]|~[/\\])/.test(behind)) return pathChoices(behind)
  if (typed === '') return []
  const path = typedPath(typed)
  const isThere = isPath(path)
  const within = /[/\\]$/.test(typed) || typed === '~'
  if (isThere && !within) return [path]
  const folder = within ? path : dirname(path)
  let names: string[]
  try {
    names = readdirSync(folder).sort()
  } catch {
    return isThere ? [path] : []
  }
  const found = names
    .filter((name) => within || join(folder, name).startsWith(path))
    .filter((name) => !name.startsWith('.') || path.includes('/.'))
    .slice(0, SHOWN)
    .map((name) => join(folder, name))
  return isThere ? [path, ...found] : found
}

function isPath(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}
