import { parseCron } from '../../config/checks.ts'
import { DEFAULT_POLICY, type RetentionPolicy } from '../../retention.ts'
import type { Asker } from './ask.ts'

export interface ScheduleAnswers {
  cron: string
  /** Undefined: UTC. */
  timezone: string | undefined
  /** Older than this, the newest snapshot is a failure to report. */
  maxAge: string
}

const HOURLY = '0 * * * *'
const SIX_HOURLY = '0 */6 * * *'
const DAILY = '0 4 * * *'
const HOUR_MS = 3_600_000
/** What a run may take, and a restart of the machine, before its absence is told. */
const PATIENCE_HOURS = 2
/** Runs that are looked at for the longest pause: a year of days. */
const RUNS_LOOKED_AT = 366

/** Asks when backups are made. */
export async function askSchedule(ask: Asker): Promise<ScheduleAnswers> {
  const chosen = await ask.choose<string>('When are backups made?', [
    { value: HOURLY, label: 'Every hour' },
    { value: SIX_HOURLY, label: 'Every 6 hours' },
    { value: DAILY, label: 'Every day', hint: 'at 4:00' },
    { value: '', label: 'At other times', hint: "by cron's five fields" },
  ])
  const cron =
    chosen ||
    (await ask.text('Minute, hour, day of the month, month, day of the week', {
      initial: '30 */2 * * *',
      validate: checkCron,
    }))
  // On the hour, all zones but a few are the same.
  const timezone = cron === HOURLY ? undefined : await askZone(ask)
  return { cron, timezone, maxAge: maxAgeOf(cron, timezone) }
}

async function askZone(ask: Asker): Promise<string> {
  return ask.text('Time zone of these times', {
    initial: Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC',
    validate: (answer) => {
      try {
        return new Intl.DateTimeFormat('en', { timeZone: answer }).format(0) && undefined
      } catch {
        return 'A name such as Europe/Berlin, or UTC.'
      }
    },
  })
}

function checkCron(answer: string): string | undefined {
  try {
    return parseCron(answer).nextRun() ? undefined : 'That is a time that never comes.'
  } catch {
    return "cron's five fields, as in 30 */2 * * * (minute, hour, day, month, weekday)."
  }
}

/** The longest pause between two runs, and two hours. */
function maxAgeOf(cron: string, timezone: string | undefined): string {
  const runs = parseCron(cron, timezone).nextRuns(RUNS_LOOKED_AT)
  let longest = 0
  for (const [at, run] of runs.entries()) {
    if (at > 0) longest = Math.max(longest, run.getTime() - (runs[at - 1] as Date).getTime())
  }
  return `${Math.ceil(longest / HOUR_MS) + PATIENCE_HOURS}h`
}

const RULES = [
  { option: 'keepHourly', noun: 'hours' },
  { option: 'keepDaily', noun: 'days' },
  { option: 'keepWeekly', noun: 'weeks' },
  { option: 'keepMonthly', noun: 'months' },
] as const

/** A policy in words. */
export function retentionWords(policy: RetentionPolicy): string {
  const parts = RULES.filter(({ option }) => policy[option]).map(({ option, noun }) => `${policy[option]} ${noun}`)
  return `the newest of each of the last ${parts.join(', and of the last ')} that have one`
}

/** Asks what stays when backups grow old. */
export async function askRetention(ask: Asker): Promise<RetentionPolicy> {
  ask.say(
    'info',
    `What no rule keeps is removed after each backup. As it is: ${retentionWords(DEFAULT_POLICY)}. The newest one is never removed.`,
  )
  const isDefault = await ask.confirm('Keep that many?', true)
  if (isDefault) return { ...DEFAULT_POLICY }
  for (;;) {
    const policy: RetentionPolicy = {}
    for (const { option, noun } of RULES) {
      const count = await ask.text(`Of how many of the last ${noun}? (0: none)`, {
        initial: String(DEFAULT_POLICY[option] ?? 0),
        validate: (answer) => (/^\d{1,5}$/.test(answer) ? undefined : 'A whole number.'),
      })
      if (Number(count) > 0) policy[option] = Number(count)
    }
    if (Object.keys(policy).length > 0) return policy
    ask.say('bad', 'That would keep nothing: give one of them a number above 0.')
  }
}
