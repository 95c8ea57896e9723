import { stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { checkFolder } from '../../doctor/runtime.ts'
import { BackupError } from '../../errors.ts'
import { removeEmptyFolders } from '../../folders.ts'
import { printable } from '../format.ts'
import { type Asker, Cancelled } from './ask.ts'
import { type Answers, configText, referencesOf } from './config-text.ts'
import { askDestination, type DestinationAnswers, type DestinationContext } from './destination.ts'
import { askEncryption } from './encryption.ts'
import { typedPath } from './paths.ts'
import { tryDestination } from './probe.ts'
import { SecretBox } from './secret-box.ts'
import type { SignIn } from './sign-in.ts'
import { askServer } from './source.ts'
import { askRetention, askSchedule, retentionWords } from './times.ts'
import { writeConfig } from './write.ts'

export interface WizardOptions {
  ask: Asker
  /** Where the config is to be. */
  file: string
  /** Replace one that is there, of which a copy is kept, without asking. */
  force: boolean
  signIn: SignIn
  signal: AbortSignal
}

export interface Written {
  file: string
  server: string
  /** What the config was before, under its new name. */
  copy: string | undefined
}

/**
 * Asks all that a config needs, tries the stores, and writes it. Nothing is on the disk before the last answer.
 * @throws Cancelled when somebody stops; BackupError; AbortError. Nothing is left then.
 */
export async function runWizard({ ask, file: wanted, force, signIn, signal }: WizardOptions): Promise<Written> {
  const { file, replace } = await chooseFile(ask, wanted, force)
  const box = new SecretBox(dirname(file))
  const made: Made[] = []
  try {
    const server = await askServer(ask, box, signal)
    const context: DestinationContext = { ask, box, signIn, source: server.source }
    const destinations = await askDestinations(context, made, signal)
    const encryption = await askEncryption(ask, box)
    const schedule = await askSchedule(ask)
    const retention = await askRetention(ask)
    const answers: Answers = { server, destinations, encryption, schedule, retention }
    const text = configText(answers, file)
    box.keepOnly(referencesOf(answers))
    ask.box('This is it', summary(answers, file))
    if (!(await ask.confirm('Write it?', true))) throw new Cancelled()
    const { copy } = await writeConfig(file, text, box, { replace })
    return { file, server: server.name, copy }
  } catch (error) {
    for (const { folder, last } of made) await removeEmptyFolders(folder, last)
    throw error
  }
}

/** Folders that were made to try them, and are to go when nothing comes of it. */
interface Made {
  folder: string
  /** The uppermost of them. */
  last: string
}

async function chooseFile(ask: Asker, wanted: string, force: boolean): Promise<{ file: string; replace: boolean }> {
  let file = wanted
  for (;;) {
    // Before all the questions, not after them.
    const folder = await checkFolder('config', dirname(file), 1)
    if (folder.state === 'fail') {
      throw new BackupError('TARGET', `The config ${file} cannot be written: ${folder.message}. ${folder.advice ?? ''}`)
    }
    if (!(await isThere(file))) return { file, replace: false }
    if (force) return { file, replace: true }
    const next = await ask.choose<'other' | 'replace' | 'stop'>(`${printable(file)} is there already.`, [
      { value: 'other', label: 'Write another file' },
      { value: 'replace', label: 'Replace it', hint: 'a copy of it is kept' },
      { value: 'stop', label: 'Stop' },
    ])
    if (next === 'stop') throw new Cancelled()
    if (next === 'replace') return { file, replace: true }
    file = resolve(
      typedPath(
        await ask.text('Which file?', {
          initial: `${file.replace(/\.ya?ml$/, '')}-2.yaml`,
          validate: (answer) => (answer === '' ? 'A name is needed.' : undefined),
        }),
      ),
    )
  }
}

async function askDestinations(
  context: DestinationContext,
  made: Made[],
  signal: AbortSignal,
): Promise<DestinationAnswers[]> {
  const destinations: DestinationAnswers[] = []
  for (;;) {
    const taken = new Set(destinations.map(({ name }) => name))
    const asked = await askDestination(context, taken)
    destinations.push(await tryDestination(context, asked, signal, (folder, last) => made.push({ folder, last })))
    const more = 'Add another place? (each backup goes to all of them in one pass)'
    if (!(await context.ask.confirm(more, false))) return destinations
  }
}

function summary({ server, destinations, encryption, schedule, retention }: Answers, file: string): string {
  const { cron, timezone = 'UTC', maxAge } = schedule
  const lines = [
    `config       ${file}`,
    `server       ${server.name}: ${server.source}`,
    ...(server.quiesce ? [`held still   by RCON at ${server.quiesce.address}`] : []),
    ...destinations.map(({ name, settings }) => `destination  ${name}: ${placeOf(settings)}`),
    `encryption   ${encryption === false ? 'NONE' : 'key' in encryption ? 'a key' : 'a password'}`,
    `schedule     ${cron} (${timezone}); too old after ${maxAge}`,
    `stays        ${retentionWords(retention)}`,
  ]
  return lines.map(printable).join('\n')
}

function placeOf(settings: DestinationAnswers['settings']): string {
  switch (settings.provider) {
    case 'filesystem':
      return settings.root
    case 'google-drive':
      return `Google Drive, ${settings.folder ?? 'its root'}`
    case 'dropbox':
      return `Dropbox, ${settings.root ?? '/'}`
    default: {
      const prefix = settings.prefix === undefined ? '' : `/${settings.prefix}`
      return `${settings.provider}, ${settings.bucket}${prefix}`
    }
  }
}

async function isThere(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
  )
}
