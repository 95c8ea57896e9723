import { randomInt } from 'node:crypto'
import { BackupError } from './errors.ts'

// How objects are named: <server>/<id>.tar.zst.mlr and so on; FORMAT.md, 'Names'.

const SERVER = /^[a-z0-9][a-z0-9._-]*$/
/** Of a server's name, all of them ASCII. */
export const SERVER_MAX_CHARACTERS = 100
const ID = /^(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d\.\d{3}Z)-[a-z0-9]{4}$/
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789'
const SUFFIXES = [
  { suffix: '.tar.zst.mlr', kind: 'tar', encrypted: true },
  { suffix: '.tar.zst', kind: 'tar', encrypted: false },
  { suffix: '.zst.mlr', kind: 'raw', encrypted: true },
  { suffix: '.zst', kind: 'raw', encrypted: false },
] as const

export const COMPANION_SUFFIX = '.sha256'
export const PIN_SUFFIX = '.pin'
/** What comes and goes beneath a server: leases and other marks. Nothing in it is a snapshot's. */
export const LEASE_FOLDER = '.lease'

export interface ObjectName {
  id: string
  kind: 'tar' | 'raw'
  encrypted: boolean
}

/** @throws BackupError USAGE for a name that is not `[a-z0-9][a-z0-9._-]*`, at most 100 characters. */
export function checkServer(server: string): string {
  if (typeof server !== 'string' || !SERVER.test(server) || server.length > SERVER_MAX_CHARACTERS) {
    throw new BackupError(
      'USAGE',
      `${JSON.stringify(server)} cannot be a server name. Use small letters, digits, dots, dashes and underscores, beginning with a letter or digit, at most ${SERVER_MAX_CHARACTERS} characters.`,
    )
  }
  return server
}

/** A new snapshot's id: UTC to the millisecond and four random characters. */
export function newId(created: Date): string {
  const random = Array.from({ length: 4 }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')
  return `${created.toISOString().replaceAll(':', '-')}-${random}`
}

/** @returns the time an id says, or null when it is no id. */
export function idTime(id: string): Date | null {
  const parts = ID.exec(id)
  if (!parts) return null
  const text = `${parts[1]}T${parts[2]}:${parts[3]}:${parts[4]}`
  const time = new Date(text)
  // Date rolls some impossible days over instead of refusing them.
  return Number.isNaN(time.getTime()) || time.toISOString() !== text ? null : time
}

export function objectBase(name: ObjectName): string {
  const found = SUFFIXES.find((one) => one.kind === name.kind && one.encrypted === name.encrypted)
  return `${name.id}${(found as (typeof SUFFIXES)[number]).suffix}`
}

/** @returns what an object's base name says, or null for a foreign object. */
export function parseObjectBase(base: string): ObjectName | null {
  for (const { suffix, kind, encrypted } of SUFFIXES) {
    if (!base.endsWith(suffix)) continue
    const id = base.slice(0, -suffix.length)
    if (idTime(id)) return { id, kind, encrypted }
  }
  return null
}

/** The companion's content, as `sha256sum` writes it. */
export function companionText(digest: string, base: string): string {
  return `${digest}  ${base}\n`
}

/** @returns the digest of a companion (ours, or the original service's bare one), or null when it is neither. */
export function parseCompanion(text: string, base: string): string | null {
  const match = /^([0-9a-f]{64})(?: [ *](.*))?\n?$/.exec(text)
  if (!match || (match[2] !== undefined && match[2] !== base)) return null
  return match[1] as string
}
