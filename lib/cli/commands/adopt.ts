import { type Command, Option } from 'commander'
import { choose, firstOf, keysFor, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatDuration } from '../format.ts'
import { withKeys, withServer, withStore } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'

/** Adds `millrace adopt`. */
export function addAdopt(program: Command, run: Runner): void {
  withKeys(withServer(withStore(program.command('adopt'), '--from')))
    .description('Read an unfinished snapshot whole and, when it is whole and authentic, make it complete.')
    .argument('<id>', "a snapshot's id")
    .addOption(new Option('--no-encryption', 'take an unencrypted snapshot; no password is asked for'))
    .option('--allow-plain', 'take an unencrypted snapshot although a password is given')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace adopt 2026-11-22T10-00-00.000Z-k3f9 --from file:///mnt/backups --server survival',
    )
    .action((id, options) => run(options, (invocation) => adoptCommand(id, options, invocation)))
}

interface AdoptCommandOptions extends SecretOptions, PlaceOptions {
  allowPlain?: boolean
}

export async function adoptCommand(
  id: string,
  options: AdoptCommandOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const chosen = firstOf(await choose(options, '--from', output))
  const keys = await keysFor(chosen, options, 'read')
  const { allowPlain } = options
  const backups = await openChosen(chosen, { ...keys, onNotice: output.notice })
  try {
    const adopted = await backups.adopt(id, { allowPlain, signal, onProgress: output.progress })
    const text = `Adopted ${id}: all ${formatBytes(adopted.storedBytes)} were read and are whole (${formatDuration(adopted.elapsedMs)}). It is complete now.`
    output.result('adopted', adopted, text)
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}
