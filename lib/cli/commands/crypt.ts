import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { createDecrypt, createEncrypt, createSeedDecrypt, createSeedEncrypt } from '../../../transforms/index.ts'
import { explain } from '../../archive/io.ts'
import { writeKeyOf } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import { isWrittenInPlace } from '../../replace-file.ts'
import { EXIT } from '../exit-codes.ts'
import { withKeys } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { standardInput, standardOutput } from '../standard.ts'

/** Adds `millrace encrypt`. */
export function addEncrypt(program: Command, run: Runner): void {
  withKeys(program.command('encrypt'), 'MILLRACE_PASSWORD')
    .description('Encrypt standard input to standard output (the container alone, nothing is compressed).')
    .option('-o, --output <file>', 'write a file instead; it appears when it is whole')
    .option('--layout <name>', "millrace, or seed: the original service's salt, nonce, ciphertext, tag", 'millrace')
    .addHelpText('after', '\nExample:\n  $ tar c world | zstd | millrace encrypt > world.tar.zst.mlr')
    .action((options) => run({}, (invocation) => encryptCommand(options, invocation)))
}

/** Adds `millrace decrypt`. */
export function addDecrypt(program: Command, run: Runner): void {
  withKeys(program.command('decrypt'), 'MILLRACE_PASSWORD')
    .description('Decrypt standard input to standard output.')
    .option('-o, --output <file>', 'write a file instead; it appears when it is whole and authentic')
    .option(
      '--layout <name>',
      "millrace, or seed: the original service's, checked whole before a byte is written",
      'millrace',
    )
    .addHelpText('after', '\nExample:\n  $ millrace decrypt < world.tar.zst.mlr | zstd -dc | tar x')
    .action((options) => run({}, (invocation) => decryptCommand(options, invocation)))
}

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

/** What is wrong with the file that -o names, in a sentence; any other error as it is. */
function outputError(output: string, error: unknown, left = ' Nothing is left of it.'): unknown {
  const { syscall } = error as NodeJS.ErrnoException
  // Reading is of standard input.
  if (syscall === undefined || syscall === 'read') return error
  return new BackupError('OUTPUT', `${explain(`Cannot write ${output}`, error)}.${left}`, { cause: error })
}

async function pipe(transform: Duplex, { output }: CryptOptions, signal: AbortSignal): Promise<number> {
  if (output === undefined) {
    if (process.stdout.isTTY) {
      throw new BackupError('USAGE', 'Standard output is a terminal. Send it to a file or a program, or use -o FILE.')
    }
    await pipeline(standardInput(), transform, standardOutput(), { signal })
    return EXIT.GOOD
  }
  // Told before all of the input has been read for it.
  if (output === '' || (await stat(output).catch(() => undefined))?.isDirectory()) {
    throw new BackupError('OUTPUT', `${JSON.stringify(output)} is no file that -o could write. Nothing was read.`)
  }
  if (await isWrittenInPlace(output)) {
    await pipeline(standardInput(), transform, createWriteStream(output), { signal }).catch((error) => {
      throw outputError(output, error, '')
    })
    return EXIT.GOOD
  }
  const partial = `${output}.millrace-${randomBytes(6).toString('hex')}`
  try {
    await pipeline(standardInput(), transform, createWriteStream(partial, { flags: 'wx', mode: 0o600, flush: true }), {
      signal,
    })
    await rename(partial, output)
  } catch (error) {
    // Where it could not be made, it cannot always be looked for either: what is thrown says why.
    await rm(partial, { force: true }).catch(() => {})
    throw outputError(output, error)
  }
  return EXIT.GOOD
}
