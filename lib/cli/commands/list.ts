import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import type { Storage } from '../../../adapters/storage.ts'
import type { ReadKeys } from '../../../transforms/index.ts'
import { isOfFuture, type ListedSnapshot } from '../../catalog.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { hasServer } from '../../config/settings.ts'
import { openDestinations } from '../../config/storage.ts'
import { BackupError } from '../../errors.ts'
import { listFirst } from '../../fallback.ts'
import { HeadCache } from '../../head-cache.ts'
import { journalFolder } from '../../journal/folder.ts'
import { type LeftUpload, leftUploads } from '../../journal/left.ts'
import { describeSnapshots, type KnownSnapshot } from '../../known.ts'
import { type Remembered, VerifyNotes } from '../../verify-notes.ts'
import { chooseAll, keysFor, openStore, type PlaceOptions } from '../configured.ts'
import { exitCodeOf, gravest } from '../exit-codes.ts'
import { formatAge, formatBytes, formatCount, formatRatio, printable, shortAge } from '../format.ts'
import { withKeys, withStores } from '../options.ts'
import type { Output } from '../output.ts'
import type { Invocation, Runner } from '../run.ts'
import type { SecretOptions } from '../secrets.ts'
import { fallbackTo } from '../stores.ts'
import { STATUS_MEANING, style } from '../style.ts'
import { type Column, fitTable, terminalWidth } from '../table.ts'

/** Adds `millrace list`. */
export function addList(program: Command, run: Runner): void {
  withKeys(withStores(program.command('list'), '--from'))
    .description(
      'List the snapshots in a store, or of the servers of the config. Nothing is opened without --long, so no password is needed.',
    )
    .option('--server <name>', 'only this server')
    .option('--journal <dir>', 'where the journals of uploads are (default: journals in the state folder)')
    .option('--long', 'open those of which too little is known here (shown as -), and show more')
    .addOption(new Option('--no-encryption', 'with --long: take unencrypted snapshots; no password is asked for'))
    .option('--allow-plain', 'with --long: open unencrypted snapshots although a password is given')
    .addHelpText(
      'after',
      '\nExamples:\n  $ millrace list\n  $ millrace list --from file:///mnt/backups --server survival\n  $ millrace list --from file:///mnt/backups --long',
    )
    .action((options) => run(options, (invocation) => listCommand(options, invocation)))
}

interface ListOptions extends SecretOptions, PlaceOptions {
  journal?: string
  long?: boolean
  allowPlain?: boolean
}

interface Listed {
  snapshots: KnownSnapshot[]
  /** By the location of the store that they are in. */
  found: Map<string, ListedSnapshot[]>
  uploads: LeftUpload[]
  /** Where nothing was found. */
  empty: string[]
}

export async function listCommand(options: ListOptions, invocation: Invocation): Promise<number> {
  const { output } = invocation
  const { long = false, passwordFile, keyFile } = options
  if (!long && (passwordFile || keyFile)) {
    throw new BackupError('USAGE', 'A password or key is of use with --long only: nothing is opened without it.')
  }
  if (!long && options.allowPlain) {
    throw new BackupError('USAGE', '--allow-plain is of use with --long only: nothing is opened without it.')
  }
  const places = await chooseAll(options, output)
  const context = { stores: new OpenStores(places[0]?.loaded), keys: new KeyRing(places[0]?.loaded, options) }
  // Asked for before any store is: a prompt must not come in the middle.
  if (long && places[0]?.loaded === undefined) await context.keys.of(options.server)
  const listed: Listed = { snapshots: [], found: new Map(), uploads: [], empty: [] }
  const codes: number[] = []
  try {
    for (const place of places) {
      try {
        await listPlace(place, context, options, listed, invocation)
      } catch (error) {
        if (places.length === 1 || invocation.signal.aborted) throw error
        // The other servers are listed all the same.
        codes.push(exitCodeOf(error))
        output.error(new Error(`${place.server}: ${(error as Error).message}`, { cause: error }), exitCodeOf(error))
      }
    }
  } finally {
    await context.stores.close()
  }
  const { snapshots, found, uploads, empty } = listed
  const verified = await verifiedOf(found, places[0]?.stateFolder as string)
  if (output.json) {
    for (const snapshot of snapshots) {
      output.result('snapshot', { ...snapshot, verified: verified.get(snapshot.key) ?? null }, '')
    }
    for (const one of uploads) output.result('upload', one, '')
  } else {
    output.text(
      [...(snapshots.length > 0 ? [table(snapshots, verified, long)] : []), ...empty, ...uploads.map(uploadLine)].join(
        '\n',
      ),
    )
  }
  return gravest(codes)
}

/** What is remembered of all of a store is in one file. */
async function verifiedOf(
  found: ReadonlyMap<string, readonly ListedSnapshot[]>,
  stateFolder: string,
): Promise<Map<string, Remembered>> {
  const verified = new Map<string, Remembered>()
  for (const [location, snapshots] of found) {
    for (const [key, one] of await new VerifyNotes(stateFolder, location).verified(snapshots)) verified.set(key, one)
  }
  return verified
}

/** Stores by what they were named as, each opened once. */
class OpenStores {
  readonly #loaded: LoadedConfig | undefined
  readonly #opened = new Map<string, Storage>()

  constructor(loaded: LoadedConfig | undefined) {
    this.#loaded = loaded
  }

  async open(stores: readonly string[]): Promise<Storage[]> {
    try {
      return await openDestinations(this.#loaded, stores, (store) => this.#openOne(store))
    } catch (error) {
      // What others have in common with them was closed.
      for (const store of stores) this.#opened.delete(store)
      throw error
    }
  }

  async #openOne(store: string): Promise<Storage> {
    const known = this.#opened.get(store)
    if (known) return known
    const storage = await openStore(this.#loaded, store)
    this.#opened.set(store, storage)
    return storage
  }

  async close(): Promise<void> {
    for (const storage of this.#opened.values()) await storage.close()
  }
}

/** The keys of each server, each asked for once. */
class KeyRing {
  readonly #loaded: LoadedConfig | undefined
  readonly #options: ListOptions
  readonly #found = new Map<string, ReturnType<typeof keysFor>>()

  constructor(loaded: LoadedConfig | undefined, options: ListOptions) {
    this.#loaded = loaded
    this.#options = options
  }

  async of(server: string | undefined): Promise<ReadKeys | undefined> {
    // All servers that the config does not know have the same keys.
    const name = this.#loaded && server !== undefined && hasServer(this.#loaded, server) ? server : ''
    let keys = this.#found.get(name)
    if (!keys) {
      keys = keysFor({ loaded: this.#loaded, server: name || undefined }, this.#options, 'read')
      this.#found.set(name, keys)
    }
    const { encryption, password, key } = await keys
    return encryption ? { password, key } : undefined
  }
}

type Place = Awaited<ReturnType<typeof chooseAll>>[number]

async function listPlace(
  { server, stores, stateFolder }: Place,
  context: { stores: OpenStores; keys: KeyRing },
  { long, allowPlain, journal }: ListOptions,
  into: Listed,
  { output, signal }: Invocation,
): Promise<void> {
  const storages = await context.stores.open(stores)
  const { storage, snapshots } = await listFirst(storages, server, { onFallback: fallbackTo(output), signal })
  const cache = new HeadCache(stateFolder, storage.location)
  for (const [name, all] of Map.groupBy(snapshots, (one) => one.server)) {
    await cache.keepOnly(name, all)
    const fetch = long ? { keys: await context.keys.of(name), allowPlain } : undefined
    // Not spread into push: a call takes some 100,000 arguments.
    for (const one of await describeSnapshots(storage, all, { stateFolder, fetch, signal })) into.snapshots.push(one)
  }
  const found = into.found.get(storage.location) ?? []
  for (const one of snapshots) found.push(one)
  into.found.set(storage.location, found)
  const locations = storages.map(({ location }) => location)
  const left = leftUploads(resolve(journal ?? journalFolder(stateFolder)), locations, server)
  // What the store has is worth listing all the same, unless the journals were asked for by name.
  const uploads = await (journal === undefined ? left.catch((error: unknown) => noUploads(error, output)) : left)
  into.uploads.push(...uploads)
  if (snapshots.length === 0) into.empty.push(`No snapshots in ${storage.location}${server ? ` of ${server}` : ''}.`)
}

function noUploads(error: unknown, output: Output): LeftUpload[] {
  if (!(error instanceof BackupError)) throw error
  output.notice(`Uploads that can be gone on with are not shown. ${error.message}`)
  return []
}

function uploadLine({ server, id, since, storedBytes, state, problem }: LeftUpload): string {
  const far = `${formatBytes(storedBytes)} stored, begun ${agoOf(Date.now() - since)}`
  const what = {
    resumable: `${far}; backup --resume goes on with it`,
    running: `${far}; it is at work`,
    unknown: `${far}; whether its process is at work cannot be told from here`,
    damaged: printable(problem ?? ''),
  }[state]
  return `${style('warn', 'unfinished upload')} of ${server} ${id}: ${what}`
}

function table(snapshots: readonly KnownSnapshot[], verified: ReadonlyMap<string, Remembered>, long: boolean): string {
  const now = Date.now()
  const age = ({ created }: KnownSnapshot) => now - created.getTime()
  const last = (one: KnownSnapshot) => verified.get(one.key)
  const servers = new Set(snapshots.map(({ server }) => server)).size
  const numbers: Column<KnownSnapshot>[] = [
    { head: 'FILES', cell: ({ known }) => (known ? String(known.files) : '-'), right: true, drops: 12 },
    { head: 'LEFT OUT', cell: ({ known }) => (known ? String(known.excluded) : '-'), right: true, drops: 11 },
  ]
  const columns: Column<KnownSnapshot>[] = [
    { head: 'SERVER', cell: ({ server }) => server, drops: servers > 1 ? 1 : 6 },
    { head: 'SNAPSHOT', cell: ({ id }) => id },
    { head: 'AGE', cell: (one) => formatAge(age(one)), short: (one) => shortAge(age(one)) },
    { head: 'STORED', cell: ({ storedBytes }) => formatBytes(storedBytes), right: true, drops: 2 },
    { head: 'CONTENT', cell: ({ known }) => (known ? formatBytes(known.bytes) : '-'), right: true, drops: 8 },
    { head: 'RATIO', cell: ratioOf, right: true, drops: 5 },
    ...(long ? numbers : []),
    { head: 'KIND', cell: ({ kind }) => (kind === 'tar' ? 'folder' : 'file'), drops: 10 },
    { head: 'CONSISTENCY', cell: ({ known }) => printable(known?.consistency ?? '-'), drops: 9 },
    { head: 'STATE', cell: stateOf, drops: 3 },
    {
      head: 'VERIFIED',
      cell: (one) => lastVerified(last(one), now),
      short: (one) => lastShort(last(one), now),
      drops: 4,
    },
  ]
  return `${fitTable(columns, snapshots, terminalWidth())}\n${style('dim', summary(snapshots, servers, now))}`
}

function summary(snapshots: readonly KnownSnapshot[], servers: number, now: number): string {
  const bytes = snapshots.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  const complete = snapshots.filter((one) => one.complete)
  // As for `latest`: what a wrong clock has dated hides no age.
  const real = complete.filter((one) => !isOfFuture(one, now))
  const newest = (real.length > 0 ? real : complete).reduce(
    (max, one) => Math.max(max, one.created.getTime()),
    -Infinity,
  )
  const of = servers > 1 ? ` of ${servers} servers` : ''
  const when = newest === -Infinity ? 'none is complete' : `the newest complete one ${agoOf(now - newest)}`
  return `${formatCount(snapshots.length, 'snapshot')}${of}, ${formatBytes(bytes)} stored, ${when}`
}

function agoOf(ms: number): string {
  return ms < 0 ? 'in the future' : ms < 1000 ? 'now' : `${formatAge(ms)} ago`
}

function ratioOf({ known, storedBytes }: KnownSnapshot): string {
  return known ? formatRatio(known.bytes, storedBytes) : '-'
}

function stateOf({ complete, pinned, encrypted, problem }: KnownSnapshot): string {
  return [
    complete ? 'complete' : style('warn', 'unfinished'),
    ...(pinned ? ['pinned'] : []),
    ...(encrypted ? [] : [style('warn', 'not encrypted')]),
    ...(problem ? [style('bad', printable(problem))] : []),
  ].join(', ')
}

function lastVerified(last: Remembered | undefined, now: number): string {
  if (!last) return '-'
  const { status, mode, at } = last
  const text = `${status === 'ok' ? '' : `${status}, `}${agoOf(now - at)}${mode === 'full' ? '' : ` (${mode})`}`
  return style(STATUS_MEANING[status], text)
}

function lastShort(last: Remembered | undefined, now: number): string {
  if (!last) return '-'
  return style(STATUS_MEANING[last.status], last.status === 'ok' ? shortAge(now - last.at) : last.status)
}
