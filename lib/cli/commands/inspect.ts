import type { Command } from 'commander'
import type { IndexEntry } from '../../../transforms/index.ts'
import { choose, firstOf, keysFor, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatRatio, printable } from '../format.ts'
import { withKeys, withServer, withStore, withTrust } from '../options.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'

/** Adds `millrace inspect`. */
export function addInspect(program: Command, run: Runner): void {
  withTrust(withKeys(withServer(withStore(program.command('inspect'), '--from'))))
    .description('Show what a snapshot says of itself; little of it is read.')
    .argument('<id>', "a snapshot's id, or latest")
    .option('--files', 'list the files in it')
    .addHelpText(
      'after',
      '\nExample:\n  $ millrace inspect latest --from file:///mnt/backups --server survival --files',
    )
    .action((id, options) => run(options, (invocation) => inspectCommand(id, options, invocation)))
}

interface InspectOptions extends SecretOptions, PlaceOptions {
  files?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

export async function inspectCommand(
  id: string,
  options: InspectOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const chosen = firstOf(await choose(options, '--from', output))
  const keys = await keysFor(chosen, options, 'read')
  const { allowPlain, allowRenamed } = options
  const backups = await openChosen(chosen, {
    ...keys,
    stateFolder: chosen.stateFolder,
    onNotice: output.notice,
  })
  try {
    const {
      snapshot,
      head,
      frames,
      encryption: sealed,
    } = await backups.inspect(id, {
      allowPlain,
      allowRenamed,
      signal,
      onEntry: options.files
        ? (entry) => {
            output.result('entry', entry, entryLine(entry))
            return output.room(signal)
          }
        : undefined,
    })
    const rows: [string, string][] = [
      ['snapshot', snapshot.id],
      ['server', snapshot.server],
      ['created', snapshot.created.toISOString()],
      ['state', snapshot.complete ? 'complete' : 'unfinished'],
      ['stored', `${formatBytes(snapshot.storedBytes)} (${snapshot.storedBytes} bytes)`],
    ]
    if (head) {
      rows.push(
        [
          'content',
          `${formatBytes(head.bytes)} in ${head.files} files, ratio ${formatRatio(head.bytes, snapshot.storedBytes)}`,
        ],
        ['consistency', head.consistency],
        ['left out', head.excluded ? `${formatCount(head.excluded, 'name')} by patterns` : 'nothing by patterns'],
        ['written by', head.tool],
      )
    }
    if (frames !== null) rows.push(['zstd frames', String(frames)])
    const how =
      sealed === null
        ? 'none'
        : `AES-256-GCM, ${sealed.iterations === null ? 'raw key' : `password, ${sealed.iterations} iterations`}`
    rows.push(['encryption', how], ['key', snapshot.key])
    output.result(
      'inspection',
      { snapshot, head, frames, encryption: sealed },
      rows.map(([name, value]) => `${name.padEnd(12)} ${printable(value)}`).join('\n'),
    )
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}

function entryLine(entry: IndexEntry): string {
  const letter = { file: '-', dir: 'd', symlink: 'l', link: 'h' }[entry.type] ?? '?'
  const time = new Date(entry.mtime)
  // Some file systems hold times of millions of years, and a calendar does not.
  const when = Number.isNaN(time.getTime()) ? '-'.padEnd(19) : time.toISOString().slice(0, 19).replace('T', ' ')
  const link = entry.link === undefined ? '' : ` -> ${entry.link}`
  const note = entry.superseded ? ' (superseded)' : entry.changed ? ` (${entry.changed})` : ''
  return printable(
    `${letter}${entry.mode.toString(8).padStart(4, '0')} ${String(entry.size).padStart(12)} ${when} ${entry.path}${link}${note}`,
  )
}
