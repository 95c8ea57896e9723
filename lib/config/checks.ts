import { Cron } from 'croner'
import { parseDuration } from '../duration.ts'
import { nearest } from '../nearest.ts'
import { parseAddress } from '../quiesce/resume.ts'
import { checkPolicy, type RetentionPolicy } from '../retention.ts'
import { type Problem, valueAt } from './problems.ts'
import type { Path } from './yaml.ts'

/*
 * What the schema cannot say: how parts of the file go together. It is asked of files that the schema refuses as well, so
 * that all that is wrong is told at once; so nothing here relies on a type, and what has the wrong one is left to it.
 */

type Mapping = Record<string, unknown>
type Say = (path: Path, text: string, at?: Problem['at']) => void

/** What a timer can wait for: 24 days. */
const HOLD_LIMIT_MAX_MS = 24 * 86_400_000

const ENCRYPTION_KEYS = ['password', 'key', 'previousPasswords', 'previousKeys']

export interface Checked {
  problems: Problem[]
  /** What works and is hardly meant. */
  warnings: Problem[]
}

/** Looks at how the parts of a file go together. */
export function checkReferences(data: unknown): Checked {
  const problems: Problem[] = []
  const warnings: Problem[] = []
  const say: Say = (path, text, at = 'value') => problems.push({ path, text, at })
  const destinations = entriesOf(valueAt(data, ['destinations']))
  const servers = entriesOf(valueAt(data, ['servers']))
  const names = destinations.map(([name]) => name)
  if (isMapping(valueAt(data, ['destinations'])) && names.length === 0) say(['destinations'], 'has no destination')
  if (isMapping(valueAt(data, ['servers'])) && servers.length === 0) say(['servers'], 'has no server')
  for (const [name, destination] of destinations) checkDestination(['destinations', name], destination, say)
  for (const [name, server] of servers) checkServer(['servers', name], server, names, say)
  checkShared(['defaults'], valueAt(data, ['defaults']), names, say)
  checkEncryption(['encryption'], valueAt(data, ['encryption']), say)
  const byDefault = valueAt(data, ['defaults', 'destinations'])
  const used = new Set(
    servers.flatMap(([, server]) => {
      const own = valueAt(server, ['destinations']) ?? byDefault
      return Array.isArray(own) ? own : names
    }),
  )
  for (const name of names) {
    if (servers.length > 0 && !used.has(name)) {
      warnings.push({ path: ['destinations', name], text: 'is used by no server', at: 'key' })
    }
  }
  return { problems, warnings }
}

function checkServer(path: Path, server: unknown, names: readonly string[], say: Say): void {
  if (!isMapping(server)) return
  const { source, sourceCommand, quiesce, include, exclude } = server
  if (source === undefined && sourceCommand === undefined) {
    say(path, 'has nothing to back up: give it a source, or a sourceCommand', 'key')
  }
  if (source !== undefined && sourceCommand !== undefined) {
    say([...path, 'sourceCommand'], 'is there beside source: a server has one of them', 'key')
  }
  if (sourceCommand !== undefined && source === undefined) {
    for (const [name, value] of Object.entries({ include, exclude })) {
      if (value !== undefined) say([...path, name], "chooses from a folder, and a command's output is none", 'key')
    }
  }
  checkShared(path, server, names, say)
  checkEncryption([...path, 'encryption'], server.encryption, say)
  checkQuiesce([...path, 'quiesce'], quiesce, say)
}

/** What servers and `defaults` have in common. */
function checkShared(path: Path, one: unknown, names: readonly string[], say: Say): void {
  if (!isMapping(one)) return
  if (Array.isArray(one.destinations)) checkNames([...path, 'destinations'], one.destinations, names, say)
  checkSchedule([...path, 'schedule'], one.schedule, say)
  if (isMapping(one.verify)) checkSchedule([...path, 'verify', 'schedule'], one.verify.schedule, say)
  checkRetention([...path, 'retention'], one.retention, say)
}

function checkNames(path: Path, given: readonly unknown[], names: readonly string[], say: Say): void {
  for (const [at, name] of given.entries()) {
    if (typeof name !== 'string') continue
    if (given.indexOf(name) < at) say([...path, at], 'is there twice')
    if (names.includes(name)) continue
    const meant = nearest(name, names)
    const known = names.length > 0 ? `Destinations are ${names.join(', ')}` : 'There is no destination yet'
    say([...path, at], `names no destination. ${meant === undefined ? known : `Did you mean ${meant}?`}`)
  }
}

function checkSchedule(path: Path, schedule: unknown, say: Say): void {
  const isLong = isMapping(schedule)
  const cron = isLong ? schedule.cron : schedule
  const cronPath = isLong ? [...path, 'cron'] : path
  const timezone = isLong ? schedule.timezone : undefined
  const isZone = typeof timezone !== 'string' || isTimeZone(timezone)
  if (!isZone) say([...path, 'timezone'], 'is not a time zone: write a name such as Europe/Berlin, or UTC')
  if (typeof cron !== 'string' || cron === '') return
  try {
    if (!parseCron(cron, isZone ? (timezone as string | undefined) : undefined).nextRun()) {
      say(cronPath, 'is a time that never comes')
    }
  } catch {
    say(
      cronPath,
      "is not a schedule: write cron's five fields, as in 0 * * * * (minute, hour, day, month, weekday), or @hourly, @daily, @weekly",
    )
  }
}

/**
 * The schedule as croner has it; it starts nothing. `0 2,14 * * *` is of fixed times of day, as `0 2 * * *` is: only what
 * has a `*` or a step among minutes or hours comes by real time when the clock changes.
 * @param timezone UTC when left out.
 * @throws Error when it is none.
 */
export function parseCron(cron: string, timezone = 'UTC'): Cron {
  // croner takes a date as well, which comes once: after it the whole file would be refused.
  if (!/^\s*(?:@\w+|\S+(?:\s+\S+){4})\s*$/.test(cron)) throw new Error('A schedule has five fields.')
  return new Cron(cron, { timezone, paused: true, mode: '5-part', fixedTimeRule: 'no-wildcard' })
}

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).format(0) !== ''
  } catch {
    return false
  }
}

function checkRetention(path: Path, retention: unknown, say: Say): void {
  if (!isMapping(retention)) return
  try {
    checkPolicy(retention as RetentionPolicy)
  } catch {
    const isWrong = Object.entries(retention).some(
      ([name, value]) =>
        (name === 'keepWithin' ? !isDuration(value) : !Number.isSafeInteger(value) || Number(value) < 0) ||
        (name === 'minimum' && value === 0),
    )
    // What is wrong with a number is told by the schema.
    if (!isWrong) say(path, 'keeps nothing: give at least one of its keep rules a number above 0', 'key')
  }
}

function checkEncryption(path: Path, encryption: unknown, say: Say): void {
  if (!isMapping(encryption)) return
  const { password, key } = encryption
  if (password !== undefined && key !== undefined) {
    say([...path, 'key'], 'is there beside password: new snapshots are encrypted with one of them', 'key')
  }
  const hasTypo = Object.keys(encryption).some((one) => !ENCRYPTION_KEYS.includes(one))
  if (password === undefined && key === undefined && !hasTypo) {
    say(path, 'has no password and no key. To go without encryption, write encryption: false', 'key')
  }
}

function checkQuiesce(path: Path, quiesce: unknown, say: Say): void {
  if (!isMapping(quiesce)) return
  const { by, address, before, after, reaches, holdLimit } = quiesce
  if (by === 'rcon' && typeof address === 'string' && address !== '') {
    try {
      parseAddress(address)
    } catch {
      say([...path, 'address'], 'cannot be read. Give it as HOST:PORT, as in localhost:25575')
    }
  }
  if (by === 'commands') {
    if (before === undefined && after === undefined)
      say(path, 'has no command: give it before, or after, or both', 'key')
    if (before === undefined && reaches !== undefined)
      say([...path, 'reaches'], 'says what before does, and there is no before', 'key')
  }
  if (isDuration(holdLimit) && parseDuration(holdLimit) > HOLD_LIMIT_MAX_MS) {
    say([...path, 'holdLimit'], 'is too long: at most 24d')
  }
}

function checkDestination(path: Path, destination: unknown, say: Say): void {
  if (!isMapping(destination)) return
  const one = destination
  const has = (name: string) => one[name] !== undefined
  const together = (names: readonly string[], why: string) => {
    const missing = names.filter((name) => !has(name))
    if (missing.length === 0 || missing.length === names.length) return
    say(path, `has ${names.filter(has).join(' and ')} without ${missing.join(' and ')}: ${why}`, 'key')
  }
  const apart = (names: readonly string[]) => {
    const [first, second] = names.filter(has)
    if (second !== undefined) say([...path, second], `is there beside ${first}: give one of them`, 'key')
  }
  if (has('endpoint')) checkEndpoint([...path, 'endpoint'], one.endpoint, say)
  switch (one.provider) {
    case 's3':
      together(
        ['accessKeyId', 'secretAccessKey'],
        'they go together. Without both, the AWS SDK looks where it always does',
      )
      if (has('sessionToken') && !has('accessKeyId'))
        say([...path, 'sessionToken'], 'needs accessKeyId and secretAccessKey beside it', 'key')
      return
    case 'google-drive':
      together(
        ['clientId', 'clientSecret', 'refreshToken'],
        'give all three, or none to use what `millrace login google-drive` keeps',
      )
      apart(['folderId', 'appData'])
      return
    case 'dropbox':
      together(['clientId', 'refreshToken'], 'give both, or none to use what `millrace login dropbox` keeps')
      if (has('clientSecret') && !has('clientId'))
        say([...path, 'clientSecret'], 'needs clientId and refreshToken beside it', 'key')
      apart(['namespace', 'rootNamespace'])
      return
    default:
  }
}

function checkEndpoint(path: Path, endpoint: unknown, say: Say): void {
  // What is no URL at all is told by the schema.
  if (typeof endpoint !== 'string' || !URL.canParse(endpoint)) return
  const url = new URL(endpoint)
  if (!/^https?:$/.test(url.protocol)) say(path, 'must begin with https:// or http://')
  if (url.username !== '' || url.password !== '')
    say(path, 'has credentials in it. Take them out: they have fields of their own')
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function entriesOf(value: unknown): [string, unknown][] {
  return isMapping(value) ? Object.entries(value) : []
}

function isDuration(value: unknown): value is string {
  if (typeof value !== 'string') return false
  try {
    return parseDuration(value) > 0
  } catch {
    return false
  }
}
