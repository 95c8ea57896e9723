import { Document, isMap, isScalar, type Pair, type YAMLMap } from 'yaml'
import { parseConfig } from '../../config/load.ts'
import type { EncryptionConfig } from '../../config/schema.ts'
import type { RetentionPolicy } from '../../retention.ts'
import type { DestinationAnswers } from './destination.ts'
import type { ServerAnswers } from './source.ts'
import { retentionWords, type ScheduleAnswers } from './times.ts'

/** All that `millrace init` has asked. */
export interface Answers {
  server: ServerAnswers
  destinations: readonly DestinationAnswers[]
  encryption: EncryptionConfig
  schedule: ScheduleAnswers
  retention: RetentionPolicy
}

const HEAD = ` What millrace backs up, where to, when, and what stays. Made by \`millrace init\`; change it as you like.
 \`millrace config check\` looks at it, and \`millrace config example\` shows what else it can say.
 A secret is never written here, only where it is: \${NAME} of the environment, file:PATH, or command:PROGRAM ARGUMENTS.
 Relative paths are relative to this file.`

const ENCRYPTED = ` What new snapshots are encrypted with. If it is lost, so are the backups: keep a copy elsewhere.
 To change it, put the old one under previousPasswords or previousKeys: [...], which are tried when older ones are read.`

/**
 * The text of the config, with a word on each part.
 * @param file where it will be.
 * @throws BackupError USAGE where it would not be a valid config, which is a fault of this program.
 */
export function configText(answers: Answers, file: string): string {
  const { server, destinations, encryption, schedule, retention } = answers
  const { name, source, quiesce } = server
  const { cron, timezone, maxAge } = schedule
  const doc = new Document({
    version: 1,
    destinations: Object.fromEntries(destinations.map((one) => [one.name, one.settings])),
    encryption,
    defaults: {
      schedule: timezone === undefined ? cron : { cron, timezone },
      retention,
      maxAge,
    },
    servers: { [name]: { source, ...(quiesce === undefined ? {} : { quiesce }) } },
  })
  doc.commentBefore = HEAD
  const root = doc.contents as YAMLMap
  comment(root, ['destinations'], ' Where backups go. The first is the one that is read from.', true)
  comment(
    root,
    ['encryption'],
    encryption === false ? ' Nothing is encrypted: whoever can read the store can read all of it.' : ENCRYPTED,
    true,
  )
  comment(root, ['defaults'], ' For servers that do not say otherwise.', true)
  comment(
    root,
    ['defaults', 'schedule'],
    ` cron: minute, hour, day, month, weekday${timezone === undefined ? ', in UTC' : ''}. \`millrace schedule\` goes by it.`,
  )
  comment(root, ['defaults', 'retention'], ` Stays: ${retentionWords(retention)}. The rest goes after each backup.`)
  comment(
    root,
    ['defaults', 'maxAge'],
    ' The newest snapshot should never be older; `millrace status` exits with 6 then.',
  )
  comment(
    root,
    ['servers'],
    ' What is backed up. The name is the folder of its backups in each destination: do not change it.',
    true,
  )
  if (quiesce) comment(root, ['servers', name, 'quiesce'], ' Saving is off while the world is read.')
  const text = doc.toString({ lineWidth: 0, singleQuote: true })
  // Held to what every command will hold it to.
  parseConfig(text, file)
  return text
}

/** The references to secrets that a config makes. */
export function referencesOf({ server, destinations, encryption }: Answers): Set<string> {
  const all = JSON.stringify([server.quiesce ?? null, destinations, encryption])
  return new Set([...all.matchAll(/"(file:[^"]*)"/g)].map((match) => JSON.parse(`"${match[1]}"`) as string))
}

function comment(map: YAMLMap, path: readonly string[], text: string, spaceBefore = false): void {
  const [first, ...rest] = path
  const pair = map.items.find(({ key }) => isScalar(key) && key.value === first) as Pair
  if (rest.length > 0) {
    if (isMap(pair.value)) comment(pair.value as YAMLMap, rest, text, spaceBefore)
    return
  }
  const { key } = pair
  if (!isScalar(key)) return
  key.commentBefore = text
  key.spaceBefore = spaceBefore
}
