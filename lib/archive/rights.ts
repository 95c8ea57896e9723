import type { Meta } from './attributes.ts'
import type { EntryType } from './entry.ts'

/** Who is to own what is restored. */
export interface Owner {
  uid: number
  gid: number
}

export interface Rights {
  owners?: boolean | Owner | undefined
  modes?: boolean | undefined
}

/** What a target sets: owners, and with them the setuid, setgid and sticky bits. */
export interface TargetRights {
  owners: boolean
  specialBits: boolean
  /** Whether modes are to be the archive's. */
  modes: boolean
}

export function targetRights({ owners = process.getuid?.() === 0, modes }: Rights): TargetRights {
  return { owners: owners !== false, specialBits: owners === true, modes: modes !== false }
}

/** An entry's owner and mode, as they are to be restored. */
export function applyRights<M extends Pick<Meta, 'mode' | 'uid' | 'gid'>>(meta: M, type: EntryType, rights: Rights): M {
  const owner = typeof rights.owners === 'object' ? rights.owners : {}
  return { ...meta, ...owner, ...(rights.modes === false ? { mode: newMode(type) } : {}) }
}

/** The mode that a new file or folder gets. */
export function newMode(type: EntryType): number {
  // Reading the mask is setting it; nothing else runs in between.
  const mask = process.umask(0)
  process.umask(mask)
  return (type === 'dir' ? 0o777 : 0o666) & ~mask
}
