import { fileURLToPath } from 'node:url'
import { type Command, Option } from 'commander'
import type { PortableNames } from '../../archive/portable-names.ts'
import type { Owner } from '../../archive/rights.ts'
import { keyFilesOf } from '../../config/open.ts'
import { destinationNames } from '../../config/settings.ts'
import { localStores } from '../../config/storage.ts'
import { BackupError } from '../../errors.ts'
import type { RestoreOptions as Options, Restored } from '../../restore.ts'
import { type Chosen, choose, keysFor, openChosen, type PlaceOptions } from '../configured.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate } from '../format.ts'
import { withKeys, withServer, withStores, withTrust } from '../options.ts'
import { type RecordedInvocation, recorded } from '../recording.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'
import { fallbackTo } from '../stores.ts'

/** Adds `millrace restore`. */
export function addRestore(program: Command, run: Runner): void {
  withTrust(withKeys(withServer(withStores(program.command('restore'), '--from'))))
    .description('Restore a snapshot. The target is put in place when everything has been checked.')
    .argument('<id>', "a snapshot's id, or latest")
    .requiredOption('--target <dir>', 'becomes the folder that was backed up; must be absent or empty')
    .option('--include <glob...>', 'only these files or folders, fetched by ranges; repeat it or name several')
    .option('--overwrite', 'replace what is at the target; with --merge, also what is of another type')
    .option('--merge', 'restore into a folder that stands: files of the snapshot replace, others stay')
    .option('--no-resume', 'do not go on with an interrupted restore to this target; remove it')
    .option('--no-space-check', 'do not ask the file system for room first')
    .option('--owner <uid:gid>', 'give everything this owner (default: the numeric owners, when run as root)')
    .option('--no-owner', 'leave everything to whoever restores it')
    .option('--no-mode', 'give files and folders the modes that new ones get')
    .addOption(
      new Option(
        '--portable-names <how>',
        'names that Windows cannot hold (default: refuse on Windows, else keep)',
      ).choices(['refuse', 'map', 'keep']),
    )
    .option('--allow-unverified', 'take a snapshot whose companion is missing or differs')
    .addHelpText(
      'after',
      `
Examples:
  $ millrace restore latest --server survival --target /srv/restored
  $ millrace restore latest --from file:///mnt/backups --server survival --target /srv/restored
  $ millrace restore latest --from … --server survival --target /tmp/some --include level.dat 'region/r.0.*.mca'
  $ millrace restore latest --from … --server survival --target /srv/minecraft/world --overwrite
  $ millrace restore latest --from … --server survival --target /srv/minecraft/world --merge --include 'playerdata/*'`,
    )
    .action((id, options) => run(options, (invocation) => restoreCommand(id, options, invocation)))
}

interface RestoreOptions extends SecretOptions, PlaceOptions {
  target: string
  include?: string[]
  overwrite?: boolean
  merge?: boolean
  resume?: boolean
  spaceCheck?: boolean
  /** `uid:gid`; false with --no-owner, true when neither is given. */
  owner?: string | boolean
  mode?: boolean
  portableNames?: PortableNames
  allowUnverified?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

export async function restoreCommand(id: string, options: RestoreOptions, invocation: Invocation): Promise<number> {
  const how = howOf(options)
  const chosen = await choose(options, '--from', invocation.output)
  const { server, stateFolder } = chosen
  return recorded({ command: 'restore', server, stateFolder }, invocation, (noted) =>
    restoreChosen(id, chosen, how, options, noted),
  )
}

async function restoreChosen(
  id: string,
  chosen: Chosen,
  how: Options,
  options: RestoreOptions,
  { output, signal, note }: RecordedInvocation,
): Promise<number> {
  const keys = await keysFor(chosen, options, 'read')
  const { allowUnverified, allowPlain, allowRenamed } = options
  const { loaded } = chosen
  // Also the stores that it does not restore from.
  const stores = loaded ? localStores(loaded, destinationNames(loaded)) : []
  const configured = [
    ...(loaded ? keyFilesOf(loaded, chosen.server) : []),
    ...stores.map(({ location }) => fileURLToPath(location)),
  ]
  const backups = await openChosen(chosen, { ...keys, onFallback: fallbackTo(output), onNotice: output.notice })
  try {
    let warnings = 0
    let kept: string | undefined
    const restored = await backups
      .restore(id, options.target, {
        include: options.include,
        ...how,
        keep: [...(options.keyFile ?? []), ...(options.passwordFile ?? []), ...configured],
        allowUnverified,
        allowPlain,
        allowRenamed,
        signal,
        onProgress: output.progress,
        onWarning(warning) {
          warnings += 1
          output.warning(warning)
        },
        onKept(folder) {
          kept = folder
        },
      })
      .catch((error: Error) => {
        if (kept === undefined) throw error
        throw stopped(error, kept)
      })
    const { files, bytes, target, elapsedMs, verified } = restored
    note({ id: restored.id, files, bytes, elapsedMs })
    output.result(
      'restored',
      { ...restored, warnings },
      `Restored ${formatCount(files, 'file')} of ${restored.id} into ${target}\n` +
        `  ${formatBytes(bytes)} in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}; ${howChecked(options, restored)}`,
    )
    return warnings > 0 || !verified ? EXIT.INCOMPLETE : EXIT.GOOD
  } finally {
    await backups.close()
  }
}

function howChecked({ include }: RestoreOptions, { verified, resumed }: Restored): string {
  if (!verified) return 'NOT verified: no companion fits'
  if (resumed) return 'resumed; every frame that was read is authentic'
  return include ? 'every frame that was read is authentic' : 'SHA-256 as its companion says'
}

function howOf(options: RestoreOptions): Options {
  const { overwrite, merge, resume, spaceCheck, mode, portableNames } = options
  return { overwrite, merge, resume, spaceCheck, modes: mode, portableNames, owners: ownersOf(options.owner) }
}

function ownersOf(owner: string | boolean | undefined): Owner | false | undefined {
  if (typeof owner !== 'string') return owner === false ? false : undefined
  const found = /^(\d{1,10}):(\d{1,10})$/.exec(owner)
  if (found) return { uid: Number(found[1]), gid: Number(found[2]) }
  throw new BackupError(
    'USAGE',
    `--owner ${JSON.stringify(owner)} is not uid:gid, two numbers. \`id NAME\` shows them.`,
  )
}

/** The failure of a restore that can be gone on with. */
function stopped(error: Error, folder: string): Error {
  if (error.name === 'AbortError') {
    const rest = `What was restored is kept in ${folder}: the same command goes on with it.`
    return new Error(`Interrupted. ${rest}`, { cause: error })
  }
  error.message += ` What was restored is kept in ${folder}: the same command goes on with it.`
  return error
}
