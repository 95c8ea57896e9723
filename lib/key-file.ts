import { open } from 'node:fs/promises'
import { BackupError } from './errors.ts'

const KEY_BYTES = 32
const SECRET_MAX_BYTES = 64 * 1024

/**
 * Reads a file that holds a secret, of at most 64 KiB.
 * @param what what it is, for the error: `password file`.
 * @throws BackupError USAGE when it is missing, unreadable or too large.
 */
export async function readSecretFile(file: string, what: string): Promise<Buffer> {
  try {
    const handle = await open(file, 'r')
    try {
      const buffer = Buffer.alloc(SECRET_MAX_BYTES + 1)
      let held = 0
      for (;;) {
        const { bytesRead } = await handle.read(buffer, held, buffer.length - held)
        held += bytesRead
        if (bytesRead === 0 || held === buffer.length) break
      }
      if (held > SECRET_MAX_BYTES)
        throw new BackupError('USAGE', `The ${what} ${file} is larger than 64 KiB: it is another file.`)
      return buffer.subarray(0, held)
    } finally {
      await handle.close()
    }
  } catch (cause) {
    if (cause instanceof BackupError) throw cause
    const reason =
      (cause as NodeJS.ErrnoException).code === 'ENOENT'
        ? 'does not exist'
        : `cannot be read (${(cause as Error).message})`
    throw new BackupError('USAGE', `The ${what} ${file} ${reason}.`, { cause })
  }
}

/**
 * Reads a password from a file: its whole content, less one line end.
 * @throws BackupError USAGE when it is missing, unreadable, empty or not UTF-8.
 */
export async function readPasswordFile(file: string): Promise<string> {
  const bytes = await readSecretFile(file, 'password file')
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new BackupError('USAGE', `The password file ${file} is not UTF-8 text. Use --key-file for a raw key.`, {
      cause,
    })
  } finally {
    bytes.fill(0)
  }
  const password = text.replace(/\r?\n$/, '')
  if (password === '') throw new BackupError('USAGE', `The password file ${file} is empty.`)
  return password
}

/**
 * Reads a 32-byte key from a file: the bytes themselves, or 64 hex digits, or base64, with a line end or without.
 * @throws BackupError USAGE when it is missing, unreadable, or none of the three for certain.
 */
export async function readKeyFile(file: string): Promise<Buffer> {
  const bytes = await readSecretFile(file, 'key file')
  const text = bytes.toString('latin1').replace(/\r?\n$/, '')
  try {
    if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
    if (/^[0-9A-Za-z+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
    if (bytes.length === KEY_BYTES && /^[0-9a-fA-F]+$/.test(text)) {
      throw new BackupError(
        'USAGE',
        `The key file ${file} holds 32 hex digits, which are a key of 16 bytes; 32 bytes are needed: 64 hex digits.`,
      )
    }
    if (bytes.length === KEY_BYTES) return Buffer.from(bytes)
  } finally {
    bytes.fill(0)
  }
  throw new BackupError(
    'USAGE',
    `The key file ${file} has ${bytes.length} bytes and holds no key of 32 bytes. It must be 32 raw bytes, 64 hex digits or 44 characters of base64.`,
  )
}
