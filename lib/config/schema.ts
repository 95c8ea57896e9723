import { z } from 'zod'
import { SERVER_MAX_CHARACTERS } from '../names.ts'
import { destinationSchema } from './destination.ts'
import { duration, secret, whole } from './values.ts'

const NAME = /^[a-z0-9][a-z0-9._-]*$/
/** A share is above 0 and at most 100. */
const HOW = /^(?:quick|full|restore-test|(?!0+(?:\.0+)?%)0*(?:\d{1,2}(?:\.\d+)?|100(?:\.0+)?)%)$/
const named = (max: number) =>
  z.string().max(max).regex(NAME, {
    error: 'is not a name: lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit',
  })
const name = named(250)
const serverName = named(SERVER_MAX_CHARACTERS)
const glob = z.string().min(1)
const shell = z.string().min(1)
const count = whole(0)

export const retentionSchema = z
  .strictObject({
    keepLast: count.meta({ description: 'The newest n.' }).optional(),
    keepHourly: count.meta({ description: 'The newest of each of the last n hours that have one (UTC).' }).optional(),
    keepDaily: count.meta({ description: 'Likewise for days.' }).optional(),
    keepWeekly: count.meta({ description: 'Likewise for ISO weeks.' }).optional(),
    keepMonthly: count.meta({ description: 'Likewise for months.' }).optional(),
    keepYearly: count.meta({ description: 'Likewise for years.' }).optional(),
    keepWithin: duration.meta({ description: 'All that are at most so old: 14d.' }).optional(),
    minimum: whole(1).meta({ description: 'The newest n stay whatever the rules say.' }).optional(),
  })
  .meta({ description: 'What stays; a snapshot that any rule keeps stays.' })

const encryptionSchema = z
  .union([
    z.literal(false),
    z.strictObject({
      password: secret.meta({ description: 'Where the password is.' }).optional(),
      key: secret.meta({ description: 'A 32-byte key instead of a password: raw, hex or base64.' }).optional(),
      previousPasswords: z.array(secret).meta({ description: 'Tried when older snapshots are read.' }).optional(),
      previousKeys: z.array(secret).meta({ description: 'Likewise for keys.' }).optional(),
    }),
  ])
  .meta({ description: 'The password or the key; false: nothing is encrypted.' })

const scheduleSchema = z
  .union([
    z.string().min(1),
    z.strictObject({
      cron: z.string().min(1).meta({ description: "cron's five fields: minute, hour, day, month, weekday." }),
      timezone: z.string().min(1).meta({ description: 'Such as Europe/Berlin. Default: UTC.' }).optional(),
      jitter: duration.meta({ description: 'Begin up to so much later, at random.' }).optional(),
      catchUp: z.boolean().meta({ description: 'Make up for a run that was missed. Default: true.' }).optional(),
    }),
  ])
  .meta({ description: "When: cron's five fields, as in 0 * * * *, or @hourly, @daily, @weekly." })

const holdLimit = duration.meta({ description: 'Hold it no longer than this. Default: 30m.' }).optional()

const quiesceSchema = z
  .discriminatedUnion('by', [
    z.strictObject({
      by: z.literal('rcon').meta({ description: 'Minecraft: saving is off while the world is read.' }),
      address: z.string().min(1).meta({ description: 'HOST:PORT of the Minecraft server.' }),
      password: secret.meta({ description: 'Where rcon.password of server.properties is.' }),
      allowStopped: z.boolean().meta({ description: 'Back a stopped server up too.' }).optional(),
      allowSilent: z.boolean().meta({ description: 'Back one up too that does not answer, as "live".' }).optional(),
      holdLimit,
    }),
    z.strictObject({
      by: z.literal('commands').meta({ description: 'Commands of your own.' }),
      before: shell.meta({ description: "A shell's command that brings the source to rest." }).optional(),
      after: shell.meta({ description: 'One that lets it go on; it also runs when the first fails.' }).optional(),
      reaches: z
        .enum(['stopped', 'snapshot', 'quiesced'])
        .meta({ description: 'What before makes of the source. Default: quiesced.' })
        .optional(),
      holdLimit,
    }),
  ])
  .meta({ description: 'How the server is held still while its world is read.' })

const hooksSchema = z
  .strictObject({
    before: shell
      .meta({ description: "A shell's command to run first; when it fails, nothing is backed up." })
      .optional(),
    after: shell.meta({ description: 'One to run when a snapshot was made, with it as JSON on stdin.' }).optional(),
    failure: shell.meta({ description: 'One to run when none was made, with the error as JSON on stdin.' }).optional(),
    timeout: duration.meta({ description: 'What each may take. Default: 5m.' }).optional(),
  })
  .meta({ description: 'Commands around each backup.' })

/** What a server can say, and `defaults` for those that do not. */
const shared = {
  destinations: z.array(name).min(1).meta({ description: 'Names of destinations. Default: all.' }).optional(),
  schedule: scheduleSchema.optional(),
  retention: retentionSchema.optional(),
  prune: z
    .boolean()
    .meta({ description: 'Prune after each backup. Default: true where retention is given.' })
    .optional(),
  resume: z
    .boolean()
    .meta({
      description:
        'Go on with uploads that were cut off; with one destination: S3, Backblaze B2, Google Drive or Dropbox.',
    })
    .optional(),
  level: whole(1, 22).meta({ description: 'zstd level. Default: 3.' }).optional(),
  defaultExcludes: z
    .boolean()
    .meta({ description: "false: also what a known game makes anew, as Minecraft's session.lock." })
    .optional(),
  wait: duration.meta({ description: 'Wait so long for another run of the server to end.' }).optional(),
  stallTimeout: duration.meta({ description: 'Drop a destination that takes nothing for so long.' }).optional(),
  hooks: hooksSchema.optional(),
  maxAge: duration.meta({ description: 'Older than this, the newest snapshot is a failure to report.' }).optional(),
  verify: z
    .strictObject({
      schedule: scheduleSchema,
      how: z
        .string()
        .regex(HOW, {
          error: 'is quick, full, restore-test, or a share as 5%',
        })
        .meta({ description: 'quick, full, restore-test, or a share of the frames, as 5%.' }),
    })
    .meta({ description: 'Verify the newest snapshot at times of its own.' })
    .optional(),
}

export const serverSchema = z.strictObject({
  source: z
    .string()
    .min(1)
    .meta({ description: 'The folder or file to back up; relative to the config file.' })
    .optional(),
  sourceCommand: z
    .array(z.string().min(1))
    .min(1)
    .meta({ description: 'A program and its arguments, whose output is backed up, instead of a source.' })
    .optional(),
  include: z.array(glob).meta({ description: 'Only these files or folders: a list of globs.' }).optional(),
  exclude: z.array(glob).meta({ description: 'Not these: a list of patterns, as in .millraceignore.' }).optional(),
  allowEmpty: z.boolean().meta({ description: 'Back an empty source up too.' }).optional(),
  quiesce: quiesceSchema.optional(),
  encryption: encryptionSchema.optional(),
  ...shared,
})

export const configSchema = z
  .strictObject({
    $schema: z.string().meta({ description: "The JSON Schema's address, for editors." }).optional(),
    version: z.literal(1).meta({ description: 'Of this format.' }).optional(),
    destinations: z.record(name, destinationSchema).meta({ description: 'Where backups go, each with a name.' }),
    servers: z.record(serverName, serverSchema).meta({ description: "What is backed up, by the server's name." }),
    encryption: encryptionSchema.optional(),
    defaults: z.strictObject(shared).meta({ description: 'For servers that do not say otherwise.' }).optional(),
    metricsFile: z.string().min(1).meta({ description: "For node_exporter's textfile collector." }).optional(),
    stateFolder: z
      .string()
      .min(1)
      .meta({ description: 'What this machine keeps between runs. Default: ~/.local/state/millrace.' })
      .optional(),
    daemon: z
      .strictObject({
        port: whole(0, 65_535).meta({ description: 'Of the status page, on loopback. Default: none.' }).optional(),
        healthFile: z.string().min(1).meta({ description: 'Written anew while the daemon is well.' }).optional(),
      })
      .meta({ description: 'Of `millrace schedule`.' })
      .optional(),
  })
  .meta({ title: 'millrace.yaml', description: 'What millrace backs up, where to, when, and what stays.' })

/** The file as it is written, with sizes and rates as numbers, and secrets as where they are. */
export type Config = z.output<typeof configSchema>
/** A server's own entry, without `defaults`. */
export type ServerConfig = z.output<typeof serverSchema>
/** Where passwords or keys are; false for none. */
export type EncryptionConfig = z.output<typeof encryptionSchema>
/** When something is done: cron's fields alone, or with a time zone and the like. */
export type ScheduleConfig = z.output<typeof scheduleSchema>
