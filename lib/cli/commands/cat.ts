import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import { choose, keysFor, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { withKeys, withServer, withStores, withTrust } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'
import { standardOutput } from '../standard.ts'
import { fallbackTo } from '../stores.ts'

/** Adds `millrace cat`. */
export function addCat(program: Command, run: Runner): void {
  withTrust(withKeys(withServer(withStores(program.command('cat'), '--from'))))
    .description('Write one file of a snapshot to standard output; only what holds it is fetched.')
    .argument('<id>', "a snapshot's id, or latest")
    .argument('[path]', 'the file, relative to the folder that was backed up; none for a snapshot of one file')
    .option('--allow-unverified', 'take a snapshot whose companion is missing or differs')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace cat latest level.dat --from file:///mnt/backups --server survival > level.dat',
    )
    .action((id, path, options) => run({}, (invocation) => catCommand(id, path, options, invocation)))
}

interface CatOptions extends SecretOptions, PlaceOptions {
  json?: boolean
  allowUnverified?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

export async function catCommand(
  id: string,
  path: string | undefined,
  options: CatOptions,
  { output, signal }: Invocation,
): Promise<number> {
  if (options.json) throw new BackupError('USAGE', 'cat writes a file as it is: it has no --json.')
  const chosen = await choose(options, '--from', output)
  const keys = await keysFor(chosen, options, 'read')
  const backups = await openChosen(chosen, {
    ...keys,
    onFallback: fallbackTo(output),
    onNotice: output.notice,
  })
  try {
    const { allowUnverified, allowPlain, allowRenamed } = options
    const stream = await backups.read(id, path, { allowUnverified, allowPlain, allowRenamed, signal })
    const to = standardOutput()
    await pipeline(stream, to, { end: to !== process.stdout, signal })
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}
