import type { Command } from 'commander'
import type { Backups } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import type { Pin } from '../../pins.ts'
import { type Chosen, choose, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT, gravest } from '../exit-codes.ts'
import { formatTable, printable } from '../format.ts'
import { withEither } from '../options.ts'
import type { Output } from '../output.ts'
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

interface PinOptions extends PlaceOptions {
  /** Given as --from or as --to: a pin is written, and it is the store that one reads from. */
  from?: string
  to?: string
  note?: string
}

export async function pinCommand(
  id: string | undefined,
  options: PinOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const chosen = await chosenOf(options, output)
  const { server } = chosen
  if (id === undefined) {
    if (options.note !== undefined) throw new BackupError('USAGE', 'Name the snapshot that the note is for.')
    return inEach(chosen, output, async (backups, at) => {
      const pins = await backups.pins({ signal })
      const where = at === undefined ? '' : ` in ${at}`
      if (output.json) for (const pin of pins) output.result('pin', { ...pin, ...(at ? { destination: at } : {}) }, '')
      else if (pins.length === 0) output.text(`No snapshot of ${server} is pinned${where}.`)
      else output.text(`${at === undefined ? '' : `${at}\n`}${table(pins)}`)
    })
  }
  let found = id
  return inEach(chosen, output, async (backups, at) => {
    const pin = await backups.pin(found, options.note, { signal })
    // What is the latest is decided once: another store may have another one.
    found = pin.id
    const where = at === undefined ? '' : ` in ${at}`
    const text = `Pinned ${pin.id} of ${server}${where}: no prune removes it until \`millrace unpin\`.`
    output.result('pin', { ...pin, ...(at === undefined ? {} : { destination: at }) }, text)
  })
}

export async function unpinCommand(id: string, options: PinOptions, { output, signal }: Invocation): Promise<number> {
  const chosen = await chosenOf(options, output)
  return inEach(chosen, output, async (backups, at) => {
    await backups.unpin(id, { signal })
    const where = at === undefined ? '' : ` in ${at}`
    const text = `Snapshot ${id} of ${chosen.server}${where} is not pinned.`
    output.result('unpin', { id, ...(at === undefined ? {} : { destination: at }) }, text)
  })
}

async function chosenOf(options: PinOptions, output: Output): Promise<Chosen> {
  if (options.from !== undefined && options.to !== undefined) {
    throw new BackupError('USAGE', 'Name the store with --from or with --to, once.')
  }
  return choose(options, '--from', output)
}

/**
 * Does it in each store, as each is pruned by itself. A snapshot that is missing in some of several is a warning.
 * @param run told the store's location where there are several.
 */
async function inEach(
  chosen: Chosen,
  output: Output,
  run: (backups: Backups, at: string | undefined) => Promise<void>,
): Promise<number> {
  const codes: number[] = []
  const missing: Error[] = []
  for (const store of chosen.stores) {
    const backups = await openChosen({ ...chosen, stores: [store] }, { encryption: false })
    try {
      await run(backups, chosen.stores.length > 1 ? backups.storage.location : undefined)
      codes.push(EXIT.GOOD)
    } catch (error) {
      if (!(error instanceof BackupError && error.code === 'NO_SNAPSHOT')) throw error
      missing.push(error)
    } finally {
      await backups.close()
    }
  }
  if (codes.length === 0) throw missing[0]
  for (const { message } of missing) output.warning({ kind: 'pin', path: '', message })
  return gravest(codes)
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
