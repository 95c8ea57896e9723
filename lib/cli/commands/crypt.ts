import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createDecrypt, createEncrypt, createSeedDecrypt, createSeedEncrypt } from '../../../transforms/index.ts'
import { writeKeyOf } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import { EXIT } from '../exit-codes.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'

interface CryptOptions extends SecretOptions {
  output?: string
  /** `seed`: the original service's layout. */
  layout?: string
}

export async function encryptCommand(options: CryptOptions, { signal }: Invocation): Promise<number> {
  const key = writeKeyOf(await findKeys(options, 'write'))
  return pipe(isSeed(options) ? createSeedEncrypt({ password: passwordOf(key) }) : createEncrypt(key), options, signal)
}

export async function decryptCommand(options: CryptOptions, { signal }: Invocation): Promise<number> {
  const keys = await findKeys(options, 'read')
  return pipe(
    isSeed(options) ? createSeedDecrypt({ password: passwordOf(keys) }) : createDecrypt(keys),
    options,
    signal,
  )
}

function isSeed({ layout }: CryptOptions): boolean {
  if (layout === undefined || layout === 'millrace') return false
  if (layout === 'seed') return true
  throw new BackupError('USAGE', `The layout ${JSON.stringify(layout)} is not known. There are millrace and seed.`)
}

function passwordOf<T>({ password }: { password?: T | undefined }): T {
  if (password === undefined || (Array.isArray(password) && password.length === 0)) {
    throw new BackupError('USAGE', "The original service's layout is sealed with a password: give one, not a key.")
  }
  return password
}

async function pipe(transform: Duplex, { output }: CryptOptions, signal: AbortSignal): Promise<number> {
  if (output === undefined) {
    if (process.stdout.isTTY) {
      throw new BackupError('USAGE', 'Standard output is a terminal. Send it to a file or a program, or use -o FILE.')
    }
    await pipeline(process.stdin, transform, process.stdout, { signal })
    return EXIT.GOOD
  }
  const partial = `${output}.millrace-${randomBytes(6).toString('hex')}`
  try {
    await pipeline(process.stdin, transform, createWriteStream(partial, { flags: 'wx', mode: 0o600, flush: true }), {
      signal,
    })
    await rename(partial, output)
  } catch (error) {
    await rm(partial, { force: true })
    throw error
  }
  return EXIT.GOOD
}
