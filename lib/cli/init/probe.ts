import { openStorage } from '../../../adapters/open.ts'
import type { ProbeReport } from '../../../adapters/storage.ts'
import { SECRET_FIELDS, storageConfigWith } from '../../config/storage.ts'
import { uppermostMissing } from '../../folders.ts'
import { formatDuration, printable } from '../format.ts'
import { type Asker, Cancelled } from './ask.ts'
import { correct, type DestinationAnswers, type DestinationContext, hasCredentials, type Part } from './destination.ts'
import type { SecretBox } from './secret-box.ts'

/**
 * Tries a destination with all the rights that a backup needs, and lets whoever answers correct what is wrong.
 * @param onFolder told which folder the trial is about to make, and the uppermost of those above it that are missing.
 * @returns the answers as they were corrected.
 * @throws Cancelled when they stop; AbortError.
 */
export async function tryDestination(
  context: DestinationContext,
  given: DestinationAnswers,
  signal: AbortSignal,
  onFolder: (folder: string, last: string) => void,
): Promise<DestinationAnswers> {
  const { ask, box } = context
  let answers = given
  for (;;) {
    ask.say('info', `Trying ${answers.name}: each right that a backup needs, on a small object of its own …`)
    if (answers.settings.provider === 'filesystem') {
      const { root } = answers.settings
      const last = uppermostMissing(root)
      if (last !== undefined) onFolder(root, last)
    }
    const problem = await probe(answers, box, ask, signal)
    if (problem === undefined) {
      ask.say('good', 'Everything that a backup needs works.')
      return answers
    }
    ask.say('bad', printable(problem))
    const next = await ask.choose<Part | 'again' | 'go-on' | 'stop'>('What now?', [
      ...(hasCredentials(answers.settings)
        ? [{ value: 'credentials' as const, label: 'Correct the credentials' }]
        : []),
      { value: 'settings', label: 'Correct the settings', hint: 'where it is' },
      { value: 'again', label: 'Try again', hint: 'after a change at the provider' },
      { value: 'go-on', label: 'Go on all the same', hint: 'backups will fail until it is right' },
      { value: 'stop', label: 'Stop', hint: 'nothing is written' },
    ])
    if (next === 'stop') throw new Cancelled()
    if (next === 'go-on') return answers
    if (next !== 'again') answers = await correct(context, answers, next)
  }
}

/** @returns what is wrong, in a sentence; undefined where all works. */
async function probe(
  { name, settings }: DestinationAnswers,
  box: SecretBox,
  ask: Asker,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    const secrets: Partial<Record<(typeof SECRET_FIELDS)[number], string>> = {}
    for (const field of SECRET_FIELDS) {
      const reference = (settings as Partial<Record<string, unknown>>)[field]
      if (typeof reference === 'string') secrets[field] = await box.value(reference, `destinations.${name}.${field}`)
    }
    const storage = await openStorage(storageConfigWith({ ...settings, ...secrets }, { name, folder: box.folder }))
    try {
      const report = await storage.probe({ signal })
      showSteps(report, ask)
      if (report.ok) return undefined
      const failed = report.steps.filter(({ ok }) => !ok).map(({ step }) => step)
      return `A backup would not work: ${failed.join(', ')} failed.${adviceOn(failed)}`
    } finally {
      await storage.close()
    }
  } catch (error) {
    if (signal.aborted) throw error
    return (error as Error).message
  }
}

function showSteps({ steps }: ProbeReport, ask: Asker): void {
  for (const { step, ok, ms, error } of steps) {
    const came = ok ? `ok      ${formatDuration(ms)}` : `FAILED  ${printable(error?.message ?? '')}`
    ask.say('step', `${step.padEnd(12)}${came}`)
  }
}

/** What is mostly meant by a step that fails. */
function adviceOn(failed: readonly string[]): string {
  if (failed.includes('sign-in')) return ' Are the credentials right, and those of this bucket or folder?'
  const rights = failed.filter((step) => ['list', 'write', 'read', 'delete'].includes(step))
  return rights.length > 0 ? ` The credentials need the right to ${rights.join(', ')}.` : ''
}
