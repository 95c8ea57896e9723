import { stat } from 'node:fs/promises'
import { checkServer } from '../../names.ts'

export const SERVER_NAME_MAX = 100

/** A server's name that is like a folder's; `server` where nothing of that can stand in one. */
export function serverNameOf(folder: string): string {
  const name = folder
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '')
    .slice(0, SERVER_NAME_MAX)
  try {
    return checkServer(name)
  } catch {
    return 'server'
  }
}

export async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  )
}
