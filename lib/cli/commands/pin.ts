import type { Command } from 'commander'
import { type Backups, openBackups } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import type { Pin } from '../../pins.ts'
import { EXIT } from '../exit-codes.ts'
import { formatTable, printable } from '../format.ts'
import { withEither } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'

/** Adds `millrace pin`. */
export function addPin(program: Command, run: Runner): void {
  withEither(program.command('pin'))
    .description('Keep a snapshot from every prune; without an id, show what is pinned.')
    .argument('[id]', "a snapshot's id, or latest")
    .option('--note <text>', 'why, for people; stored in plain text')
    .addHelpText(
      'after',
      "\nExample:\n  $ millrace pin latest --from file:///mnt/backups --server survival --note 'before the update'",
    )
    .action((id, options) => run(options, (invocation) => pinCommand(id, options, invocation)))
}

/** Adds `millrace unpin`. */
export function addUnpin(program: Command, run: Runner): void {
  withEither(program.command('unpin'))
    .description("Take a snapshot's pin away.")
    .argument('<id>', "a snapshot's id")
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace unpin 2026-11-22T10-00-00.000Z-k3f9 --from file:///mnt/backups --server survival',
    )
    .action((id, options) => run(options, (invocation) => unpinCommand(id, options, invocation)))
}

interface PinOptions {
  /** Given as --from or as --to: a pin is written, and it is the store that one reads from. */
  from?: string
  to?: string
  server: string
  note?: string
}

export async function pinCommand(
  id: string | undefined,
  options: PinOptions,
  { output, signal }: Invocation,
): Promise<number> {
  return withBackups(options, async (backups) => {
    if (id !== undefined) {
      const pin = await backups.pin(id, options.note, { signal })
      output.result('pin', pin, `Pinned ${pin.id} of ${options.server}: no prune removes it until \`millrace unpin\`.`)
      return
    }
    if (options.note !== undefined) throw new BackupError('USAGE', 'Name the snapshot that the note is for.')
    const pins = await backups.pins({ signal })
    if (output.json) for (const pin of pins) output.result('pin', pin, '')
    else output.text(pins.length > 0 ? table(pins) : `No snapshot of ${options.server} is pinned.`)
  })
}

export async function unpinCommand(id: string, options: PinOptions, { output, signal }: Invocation): Promise<number> {
  return withBackups(options, async (backups) => {
    await backups.unpin(id, { signal })
    output.result('unpin', { id }, `Snapshot ${id} of ${options.server} is not pinned.`)
  })
}

async function withBackups(options: PinOptions, run: (backups: Backups) => Promise<void>): Promise<number> {
  const { from, to, server } = options
  const storage = from ?? to
  if (storage === undefined || (from !== undefined && to !== undefined)) {
    throw new BackupError('USAGE', 'Name the store with --from or with --to, once.')
  }
  const backups = await openBackups({ storage, server, encryption: false })
  try {
    await run(backups)
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}

function table(pins: readonly Pin[]): string {
  return formatTable(
    ['SNAPSHOT', 'PINNED', 'NOTE'],
    pins.map(({ id, since, note, snapshot }) => [
      id,
      since?.toISOString().slice(0, 10) ?? '-',
      `${printable(note ?? '')}${snapshot ? '' : ' (there is no such snapshot)'}`,
    ]),
  )
}
