import { z } from 'zod'
import { destinationSchema } from './destination.ts'
import { duration, secret, whole } from './values.ts'

const NAME = /^[a-z0-9][a-z0-9._-]*$/
const name = z.string().max(250).regex(NAME, {
  error: 'is not a name: lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit',
})
const glob = z.string().min(1)
const shell = z.string().min(1).meta({ description: "A command for the system's shell." })
const count = whole(0)

export const retentionSchema = z
  .strictObject({
    keepLast: count.meta({ description: 'The newest n.' }).optional(),
    keepHourly: count.meta({ description: 'The newest of each of the last n hours that have one (UTC).' }).optional(),
    keepDaily: count.optional(),
    keepWeekly: count.optional(),
    keepMonthly: count.optional(),
    keepYearly: count.optional(),
    keepWithin: duration.optional(),
    minimum: whole(1).meta({ description: 'The newest n stay whatever the rules say.' }).optional(),
  })
  .meta({ description: 'What stays; a snapshot that any rule keeps stays.' })

const encryptionSchema = z
  .union([
    z.literal(false),
    z.strictObject({
      password: secret.optional(),
      key: secret.meta({ description: 'A 32-byte key instead of a password: raw, hex or base64.' }).optional(),
      previousPasswords: z.array(secret).meta({ description: 'Tried when older snapshots are read.' }).optional(),
      previousKeys: z.array(secret).optional(),
    }),
  ])
  .meta({ description: 'The password or the key; false: nothing is encrypted.' })

const scheduleSchema = z
  .union([
    z.string().min(1),
    z.strictObject({
      cron: z.string().min(1),
      timezone: z.string().min(1).meta({ description: 'Such as Europe/Berlin. Default: UTC.' }).optional(),
      jitter: duration.meta({ description: 'Begin up to so much later, at random.' }).optional(),
      catchUp: z.boolean().meta({ description: 'Make up for a run that was missed. Default: true.' }).optional(),
    }),
  ])
  .meta({ description: "When: cron's five fields, as in 0 * * * *, or @hourly, @daily, @weekly." })

const quiesceSchema = z
  .discriminatedUnion('by', [
    z.strictObject({
      by: z.literal('rcon'),
      address: z.string().min(1).meta({ description: 'HOST:PORT of the Minecraft server.' }),
      password: secret,
      allowStopped: z.boolean().optional(),
      allowSilent: z.boolean().optional(),
      holdLimit: duration.optional(),
    }),
    z.strictObject({
      by: z.literal('commands'),
      before: shell.optional(),
      after: shell.optional(),
      reaches: z.enum(['stopped', 'snapshot', 'quiesced']).optional(),
      holdLimit: duration.optional(),
    }),
  ])
  .meta({ description: 'How the server is held still while its world is read.' })

const hooksSchema = z.strictObject({
  before: shell.optional(),
  after: shell.optional(),
  failure: shell.optional(),
  timeout: duration.optional(),
})

/** What a server can say, and `defaults` for those that do not. */
const shared = {
  destinations: z.array(name).min(1).meta({ description: 'Names of destinations. Default: all.' }).optional(),
  schedule: scheduleSchema.optional(),
  retention: retentionSchema.optional(),
  prune: z
    .boolean()
    .meta({ description: 'Prune after each backup. Default: true where retention is given.' })
    .optional(),
  level: whole(1, 22).meta({ description: 'zstd level. Default: 3.' }).optional(),
  defaultExcludes: z.boolean().optional(),
  wait: duration.meta({ description: 'Wait so long for another run of the server to end.' }).optional(),
  stallTimeout: duration.meta({ description: 'Drop a destination that takes nothing for so long.' }).optional(),
  hooks: hooksSchema.optional(),
  maxAge: duration.meta({ description: 'Older than this, the newest snapshot is a failure to report.' }).optional(),
  verify: z
    .strictObject({
      schedule: scheduleSchema,
      how: z
        .string()
        .regex(/^(?:quick|full|restore-test|\d+(?:\.\d+)?%)$/, {
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
  include: z.array(glob).optional(),
  exclude: z.array(glob).optional(),
  allowEmpty: z.boolean().optional(),
  quiesce: quiesceSchema.optional(),
  encryption: encryptionSchema.optional(),
  ...shared,
})

export const configSchema = z
  .strictObject({
    $schema: z.string().optional(),
    version: z.literal(1).optional(),
    destinations: z.record(name, destinationSchema).meta({ description: 'Where backups go, each with a name.' }),
    servers: z.record(name, serverSchema).meta({ description: "What is backed up, by the server's name." }),
    encryption: encryptionSchema.optional(),
    defaults: z.strictObject(shared).meta({ description: 'For servers that do not say otherwise.' }).optional(),
    metricsFile: z.string().min(1).meta({ description: "For node_exporter's textfile collector." }).optional(),
    stateFolder: z.string().min(1).optional(),
    daemon: z
      .strictObject({
        port: whole(0, 65_535).meta({ description: 'Of the status page, on loopback. Default: none.' }).optional(),
        healthFile: z.string().min(1).optional(),
      })
      .meta({ description: 'Of `millrace schedule`.' })
      .optional(),
  })
  .meta({ title: 'millrace.yaml', description: 'What millrace backs up, where to, when, and what stays.' })

/** The file as it is written, with sizes and rates as numbers, and secrets as where they are. */
export type Config = z.output<typeof configSchema>
export type ServerConfig = z.output<typeof serverSchema>
export type EncryptionConfig = z.output<typeof encryptionSchema>
export type ScheduleConfig = z.output<typeof scheduleSchema>
