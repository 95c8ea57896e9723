import { formatBytes, formatCount } from '../cli/format.ts'
import type { Remembered } from '../verify-notes.ts'
import type { ServerReport } from './model.ts'
import { ageText } from './words.ts'

export type State = 'good' | 'attention' | 'problem'

/** Something that whoever looks at the page should know, the gravest first. */
export interface Finding {
  level: 'problem' | 'attention' | 'info'
  text: string
}

const DAY_MS = 24 * 3_600_000
const VERIFIED_RECENTLY_MS = 30 * DAY_MS
/** Some are always past the policy until the next prune; so many are not. */
const REMOVE_MANY = 10
const ORDER: readonly Finding['level'][] = ['problem', 'attention', 'info']

export function stateOf(findings: readonly Finding[]): State {
  const [first] = findings
  return first === undefined || first.level === 'info' ? 'good' : first.level
}

/** What is to be said of a server. @param about.verified what is remembered of its snapshots. */
export function findingsOf(
  server: Omit<ServerReport, 'findings' | 'state'>,
  { now, verified }: { now: number; verified: readonly Remembered[] },
): Finding[] {
  const found: Finding[] = []
  const say = (level: Finding['level'], text: string) => found.push({ level, text })
  const { stores, counts, maxAge, lastBackup, lastVerified, policy } = server
  for (const { location, newest, tooOld, problem } of stores) {
    const where = stores.length > 1 ? ` in ${location}` : ''
    if (problem !== null) say('problem', `${location} could not be read: ${problem}`)
    else if (newest === null) say('problem', `There is no complete snapshot${where}.`)
    else if (tooOld) {
      say('problem', `The newest complete snapshot${where} is ${ageText(newest.ageMs)} old; ${maxAge} is the limit.`)
    }
  }
  const damaged = verified.filter(({ status }) => status === 'damaged').length
  if (damaged > 0) say('problem', `${formatCount(damaged, 'snapshot')} failed verification: damaged.`)
  const unverified = verified.filter(({ status }) => status === 'unverified').length
  if (unverified > 0)
    say('attention', `${formatCount(unverified, 'snapshot')} could not be verified against a companion.`)
  if (lastBackup && lastBackup.outcome !== 'ok') {
    const { outcome, error } = lastBackup
    const what = outcome === 'incomplete' ? 'is incomplete' : outcome === 'failed' ? 'failed' : 'was interrupted'
    say('attention', `The last backup run ${what}${error ? `: ${error.message}` : '.'}`)
  }
  if (counts.future > 0)
    say('attention', `${formatCount(counts.future, 'snapshot')} dated in the future: a clock was wrong.`)
  if (policy.minimum !== undefined && counts.complete > 0 && counts.complete < policy.minimum) {
    say('attention', `The policy wants at least ${formatCount(policy.minimum, 'complete snapshot')}.`)
  }
  if (counts.remove > 0) {
    const many = counts.remove > Math.max(REMOVE_MANY, counts.complete / 4)
    const freed = formatBytes(server.removeBytes)
    say(
      many ? 'attention' : 'info',
      `${formatCount(counts.remove, 'snapshot')} (${freed}) ${counts.remove === 1 ? 'is' : 'are'} kept by no rule, and the next prune removes ${counts.remove === 1 ? 'it' : 'them'}.${many ? ' Is prune being run?' : ''}`,
    )
  }
  if (counts.unfinished > 0) {
    say(
      'info',
      `${formatCount(counts.unfinished, 'snapshot')} unfinished: a backup is at work, or broke off. No rule removes what is unfinished.`,
    )
  }
  if (counts.complete > 0 && (!lastVerified || now - Date.parse(lastVerified.at) > VERIFIED_RECENTLY_MS)) {
    say('info', 'No snapshot was verified from this machine in the last 30 days.')
  }
  return found.sort((a, b) => ORDER.indexOf(a.level) - ORDER.indexOf(b.level))
}
