import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import type { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createDecrypt, createEncrypt } from '../../../transforms/index.ts'
import { writeKeyOf } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import { EXIT } from '../exit-codes.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'

interface CryptOptions extends SecretOptions {
  output?: string
}

export async function encryptCommand(options: CryptOptions, { signal }: Invocation): Promise<number> {
  return pipe(createEncrypt(writeKeyOf(await findKeys(options, 'write'))), options, signal)
}

export async function decryptCommand(options: CryptOptions, { signal }: Invocation): Promise<number> {
  return pipe(createDecrypt(await findKeys(options, 'read')), options, signal)
}

async function pipe(transform: Transform, { output }: CryptOptions, signal: AbortSignal): Promise<number> {
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
