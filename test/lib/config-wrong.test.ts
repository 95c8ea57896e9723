import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseConfig } from '../../lib/config/index.ts'
import { BackupError } from '../../lib/errors.ts'
import { DESTINATIONS, destination, problems, SECRET, server } from '../support/wrong-config.ts'

/** A config, and all that is said of it. */
const WRONG: [string, ...(string | RegExp)[]][] = [
  // The file.
  ['', 'millrace.yaml is empty. `millrace config example` shows what a file looks like.'],
  ['# nothing but a comment\n', /^millrace\.yaml is empty\./],
  ['- servers', '1:1 the file must be a mapping: names with values, such as servers:.'],
  [SECRET, '1:1 the file must be a mapping: names with values, such as servers:.'],
  [`a: ${SECRET}: b`, /^1:4 a mapping begins in the middle of a line\./],
  [`${DESTINATIONS}servers: {}\nservers: {}`, '3:1 this key is there twice.'],
  ['destinations:\n\tlocal: {}', /^2:1 a tab stands where the indentation is\./],
  [`a: "${SECRET}`, /^1:\d+ a character is missing: a quote, bracket,/],
  [`a: @${SECRET}`, /^1:4 text cannot begin with this character\. Put it in quotes\.$/],
  [`a: *${SECRET}`, /^1:4 an alias \(\*name\) has no anchor/],
  [`a: !${SECRET} x`, /^1:4 there is a tag \(!name\) that is not known\./],
  [`a: 1\n---\nb: ${SECRET}`, /^2:1 a second document begins\./],
  [`a: "\\q${SECRET}"`, /^1:\d+ a backslash in double quotes begins no known escape\./],
  ['__proto__: { source: x }', '1:1 __proto__ is not known.'],
  ['a: '.concat('['.repeat(5_000)), /^1:\d+ the file is nested too deeply\.$/],
  [
    `x: ${SECRET}\n`,
    '1:1 destinations is missing.',
    '1:1 servers is missing.',
    '1:1 x is not known. Known here are version, destinations, servers, encryption, defaults, metricsFile, stateFolder, daemon.',
  ],
  [`${DESTINATIONS}servers:\n`, '2:1 servers is empty: give it a value, or take it out.'],
  [`${DESTINATIONS}servers: {}\n`, '2:10 servers has no server.'],
  ['destinations: {}\nservers: { survival: { source: world } }', '1:15 destinations has no destination.'],
  [`${DESTINATIONS}servers: [survival]\n`, '2:10 servers must be a mapping: names with values beneath it.'],
  [`version: 2\n${server('')}`, '1:10 version is not known. It can only be 1.'],
  // Names of fields.
  [server('shedule: "@daily"'), '3:30 servers.survival.shedule is not known. Did you mean schedule?'],
  [
    server('keep: 3, retention: { keepHourley: 3 }'),
    /^3:30 servers\.survival\.keep is not known\. Known here are source,/,
    '3:52 servers.survival.retention.keepHourley is not known. Did you mean keepHourly?',
    '3:39 servers.survival.retention keeps nothing: give at least one of its keep rules a number above 0.',
  ],
  [`server: {}\n${server('')}`, '1:1 server is not known, and servers is there as well.'],
  [
    server(`encryption: { pasword: ${SECRET} }`),
    '3:44 servers.survival.encryption.pasword is not known. Did you mean password?',
  ],
  [
    `${DESTINATIONS}servers: { "My World": { source: world } }`,
    '2:12 servers."My World" is not a name: lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit.',
  ],
  // Kinds of values.
  [server('exclude: "*.tmp"'), '3:39 servers.survival.exclude must be a list.'],
  [server('exclude: [1, "*.tmp"]'), '3:40 servers.survival.exclude[0] must be text: put it in quotes.'],
  [server('level: 30'), '3:37 servers.survival.level must be a whole number from 1 to 22.'],
  [server('level: fast'), '3:37 servers.survival.level must be a whole number from 1 to 22.'],
  [server('allowEmpty: "yes"'), '3:42 servers.survival.allowEmpty must be true or false.'],
  [server('hooks: echo'), '3:37 servers.survival.hooks must be a mapping: names with values beneath it.'],
  [
    server('wait: 10'),
    '3:36 servers.survival.wait is not a length of time: write whole numbers with w, d, h, m or s, such as 26h or 1d12h.',
  ],
  [server('maxAge: 26 hours'), /^3:38 servers\.survival\.maxAge is not a length of time:/],
  [server('wait: '), '3:30 servers.survival.wait is empty: give it a value, or take it out.'],
  [server('encryption: true'), '3:42 servers.survival.encryption must be false or a mapping.'],
  [
    server('verify: { schedule: "@daily", how: fully }'),
    '3:65 servers.survival.verify.how is quick, full, restore-test, or a share as 5%.',
  ],
  // Secrets.
  [
    server(`encryption: { password: ${SECRET} }`),
    '3:54 servers.survival.encryption.password is a secret: write where it is, as ${NAME} of the environment, file:PATH, or command:PROGRAM, not itself.',
  ],
  [
    server('encryption: { password: 12345 }'),
    /^3:54 servers\.survival\.encryption\.password is a secret: write where it is/,
  ],
  [
    server('encryption: { previousPasswords: [file:old] }'),
    '3:30 servers.survival.encryption has no password and no key. To go without encryption, write encryption: false.',
  ],
  [
    server('encryption: { password: file:p, key: file:k }'),
    '3:62 servers.survival.encryption.key is there beside password: new snapshots are encrypted with one of them.',
  ],
  [
    destination(`provider: s3, bucket: b, accessKeyId: ${SECRET}, secretAccessKey: file:x`),
    /^1:66 destinations\.offsite\.accessKeyId is a secret:/,
  ],
  [destination(`provider: s3, bucket: b, region: [${SECRET}]`), '1:61 destinations.offsite.region must be text.'],
  [
    destination(`provider: ${SECRET}`),
    '1:38 destinations.offsite.provider is not known. It is one of s3, google-drive, dropbox, backblaze-b2, filesystem.',
  ],
  [
    destination(`provider: s3, bucket: b, storageClas: ${SECRET}`),
    '1:53 destinations.offsite.storageClas is not known. Did you mean storageClass?',
  ],
  [
    destination(`provider: s3, bucket: b, endpoint: "https://k:${SECRET}@s3.example.org"`),
    '1:63 destinations.offsite.endpoint has credentials in it. Take them out: they have fields of their own.',
  ],
  // Destinations.
  [
    destination('provider: googel-drive'),
    '1:38 destinations.offsite.provider is not known. Did you mean google-drive? It is one of s3, google-drive, dropbox, backblaze-b2, filesystem.',
  ],
  [
    destination('bucket: b'),
    '1:17 destinations.offsite.provider is missing. It is one of s3, google-drive, dropbox, backblaze-b2, filesystem.',
  ],
  [destination('provider: s3'), '1:17 destinations.offsite.bucket is missing.'],
  [
    destination('provider: s3, bucket: b, profile: miniio'),
    /^1:62 destinations\.offsite\.profile is not known\. Did you mean minio\? It is one of aws, minio, ceph,/,
  ],
  [
    destination('provider: s3, bucket: b, endpoint: minio.example.org'),
    '1:63 destinations.offsite.endpoint must be a URL, such as https://s3.example.org.',
  ],
  [
    destination('provider: s3, bucket: b, endpoint: "ftp://minio.example.org"'),
    '1:63 destinations.offsite.endpoint must begin with https:// or http://.',
  ],
  [
    destination('provider: s3, bucket: b, accessKeyId: "${ID}"'),
    '1:17 destinations.offsite has accessKeyId without secretAccessKey: they go together. Without both, the AWS SDK looks where it always does.',
  ],
  [
    destination('provider: s3, bucket: b, bandwidth: 20MiB'),
    /^1:64 destinations\.offsite\.bandwidth is no rate: write bytes a second/,
  ],
  [destination('provider: s3, bucket: b, bandwidth: 0MiB/s'), /^1:64 destinations\.offsite\.bandwidth is no rate:/],
  [
    destination('provider: s3, bucket: b, partBytes: 3 QiB'),
    /^1:64 destinations\.offsite\.partBytes is no size: write bytes/,
  ],
  [
    destination('provider: s3, bucket: b, objectLock: { mode: GOVERNANCE, days: 0 }'),
    '1:91 destinations.offsite.objectLock.days must be a whole number from 1 to 36500.',
  ],
  [
    destination('provider: s3, bucket: b, encryption: { algorithm: "aws:ksm" }'),
    '1:78 destinations.offsite.encryption.algorithm is not known. Did you mean aws:kms? It is one of AES256, aws:kms.',
  ],
  [
    destination('provider: google-drive, refreshToken: file:t'),
    '1:17 destinations.offsite has refreshToken without clientId and clientSecret: give all three, or none to use what `millrace login google-drive` keeps.',
  ],
  [
    destination('provider: google-drive, folderId: x, appData: true'),
    '1:65 destinations.offsite.appData is there beside folderId: give one of them.',
  ],
  [destination('provider: dropbox, root: backups'), '1:53 destinations.offsite.root must begin with /.'],
  [
    destination('provider: dropbox, namespace: "1", rootNamespace: "2"'),
    '1:63 destinations.offsite.rootNamespace is there beside namespace: give one of them.',
  ],
  [
    destination('provider: backblaze-b2, bucket: b, keyId: file:k'),
    '1:17 destinations.offsite.applicationKey is missing.',
  ],
  [destination('provider: filesystem, root: ""'), '1:56 destinations.offsite.root must not be empty.'],
  // What goes together.
  [
    `${DESTINATIONS}servers: { survival: { exclude: [x] } }`,
    '2:12 servers.survival has nothing to back up: give it a source, or a sourceCommand.',
  ],
  [
    server('sourceCommand: [pg_dump]'),
    '3:30 servers.survival.sourceCommand is there beside source: a server has one of them.',
  ],
  [
    `${DESTINATIONS}servers: { db: { sourceCommand: [pg_dump], exclude: [x] } }`,
    "2:44 servers.db.exclude chooses from a folder, and a command's output is none.",
  ],
  [server('destinations: [lokal]'), '3:45 servers.survival.destinations[0] names no destination. Did you mean local?'],
  [
    server('destinations: [elsewhere]'),
    '3:45 servers.survival.destinations[0] names no destination. Destinations are local.',
  ],
  [server('destinations: [local, local]'), '3:52 servers.survival.destinations[1] is there twice.'],
  [
    `defaults: { destinations: [${SECRET.toLowerCase()}] }\n${server('')}`,
    '1:28 defaults.destinations[0] names no destination. Destinations are local.',
  ],
  [server('schedule: 61 * * * *'), /^3:40 servers\.survival\.schedule is not a schedule: write cron's five fields/],
  [server('schedule: "0 0 * * * *"'), /^3:40 servers\.survival\.schedule is not a schedule:/],
  [server('schedule: 0 0 30 2 *'), '3:40 servers.survival.schedule is a time that never comes.'],
  [
    server('schedule: { cron: "@daily", timezone: Europe/Berln }'),
    '3:68 servers.survival.schedule.timezone is not a time zone: write a name such as Europe/Berlin, or UTC.',
  ],
  [server('schedule: { timezone: UTC }'), '3:30 servers.survival.schedule.cron is missing.'],
  [
    server('retention: { keepLast: 0, minimum: 3 }'),
    '3:30 servers.survival.retention keeps nothing: give at least one of its keep rules a number above 0.',
  ],
  [
    server('retention: { keepDaily: -1 }'),
    '3:54 servers.survival.retention.keepDaily must be a whole number, 0 or more.',
  ],
  [
    server('quiesce: { by: rcon, password: file:p, address: "a:b:c" }'),
    '3:78 servers.survival.quiesce.address cannot be read. Give it as HOST:PORT, as in localhost:25575.',
  ],
  [
    server('quiesce: { by: rcom, password: file:p }'),
    '3:45 servers.survival.quiesce.by is not known. Did you mean rcon? It is one of rcon, commands.',
  ],
  [
    server('quiesce: { by: commands }'),
    '3:30 servers.survival.quiesce has no command: give it before, or after, or both.',
  ],
  [
    server('quiesce: { by: commands, after: x, reaches: stopped }'),
    '3:65 servers.survival.quiesce.reaches says what before does, and there is no before.',
  ],
  [
    server('quiesce: { by: commands, after: x, holdLimit: 9w }'),
    '3:76 servers.survival.quiesce.holdLimit is too long: at most 24d.',
  ],
]

test('each wrong config is told by its place and in plain words, and no value of it is repeated', () => {
  assert.ok(WRONG.length >= 70)
  for (const [text, ...expected] of WRONG) {
    const told = problems(text)
    for (const line of told) assertPlace(text, line)
    assert.equal(told.length, expected.length, `${text.slice(0, 200)}\n${told.join('\n')}`)
    for (const [at, one] of [...expected].sort(byPlace).entries()) {
      const line = told.toSorted(byPlace)[at] as string
      if (typeof one === 'string') assert.equal(line, one)
      else assert.match(line, one)
    }
  }
})

/** The place that is told is that of the key that it names, or of its value. */
function assertPlace(text: string, told: string): void {
  const [, line, column, path] = /^(\d+):(\d+) (\S+)/.exec(told) ?? []
  const key = /(?:^|\.)("[^"]+"|[\w$-]+)(?:\[\d+\])?$/.exec(path ?? '')?.[1]
  if (key === undefined || !/^(?:destinations|servers|defaults)\./.test(path as string) || /is missing/.test(told))
    return
  const row = text.split('\n')[Number(line) - 1] as string
  const [before, after] = [row.slice(0, Number(column) - 1), row.slice(Number(column) - 1)]
  const isValue = new RegExp(`${key}: (?:\\[(?:[^\\]]*, )?)?$`).test(before)
  assert.ok(after.startsWith(`${key}:`) || isValue, `${told}\n${row}\n${'^'.padStart(Number(column))}`)
}

/** By the text, which begins with the place: only so that two lists are in one order. */
function byPlace(a: string | RegExp, b: string | RegExp): number {
  const text = (one: string | RegExp) => (typeof one === 'string' ? one : one.source.replace(/^\^|\\/g, ''))
  return text(a) < text(b) ? -1 : 1
}

test('all that is wrong is told at once, by line', () => {
  const told = problems(`destinations:
  a: { provider: s4 }
servers:
  survival:
    shedule: "@daily"
    level: 0
    destinations: [b]
`)
  assert.deepEqual(
    told.map((line) => line.split(' ').slice(0, 2).join(' ')),
    [
      '2:18 destinations.a.provider',
      '4:3 servers.survival',
      '5:5 servers.survival.shedule',
      '6:12 servers.survival.level',
      '7:20 servers.survival.destinations[0]',
    ],
  )
})

test('a secret in any place of a config is never repeated', () => {
  const whole = {
    destinations: {
      s3: {
        provider: 's3',
        bucket: 'b',
        region: 'r',
        endpoint: 'https://x.example.org',
        profile: 'minio',
        accessKeyId: 'file:x',
        secretAccessKey: 'file:x',
        storageClass: 'X',
        tags: { a: 'b' },
        partBytes: '16MiB',
        bandwidth: '1MiB/s',
      },
      folder: { provider: 'filesystem', root: 'x' },
    },
    servers: {
      a: {
        source: 'x',
        exclude: ['x'],
        destinations: ['s3', 'folder'],
        level: 3,
        wait: '1h',
        maxAge: '3h',
        schedule: { cron: '@daily', timezone: 'UTC', jitter: '1m' },
        retention: { keepLast: 3, keepWithin: '14d' },
        encryption: { password: 'file:x', previousKeys: ['file:y'] },
        quiesce: { by: 'rcon', address: 'localhost:1', password: 'file:x' },
        hooks: { before: 'x', timeout: '1m' },
        verify: { schedule: '@weekly', how: '5%' },
      },
    },
    metricsFile: 'x',
    daemon: { port: 1 },
  }
  parseConfig(JSON.stringify(whole), 'millrace.json')
  let places = 0
  const put = (node: unknown, set: (value: unknown) => void) => {
    for (const value of [SECRET, [SECRET], { [`x-${places}`]: SECRET }, `https://${SECRET}:x@y`]) {
      set(value)
      places += 1
      try {
        parseConfig(JSON.stringify(whole), 'millrace.json')
      } catch (error) {
        assert.ok(error instanceof BackupError)
        assert.ok(!error.message.includes(SECRET), error.message)
      }
    }
    set(node)
    if (typeof node !== 'object' || node === null) return
    const record = node as Record<string, unknown>
    for (const key of Object.keys(record)) {
      put(record[key], (value) => {
        record[key] = value
      })
    }
  }
  for (const key of Object.keys(whole)) {
    const record = whole as Record<string, unknown>
    put(record[key], (value) => {
      record[key] = value
    })
  }
  assert.ok(places > 200)
})

test('aliases that would fill the memory are refused', () => {
  const lines = ['l0: &l0 [x, x, x, x, x, x, x, x, x]']
  for (let at = 1; at < 10; at += 1)
    lines.push(
      `l${at}: &l${at} [${Array(9)
        .fill(`*l${at - 1}`)
        .join(', ')}]`,
    )
  assert.deepEqual(problems(lines.join('\n')), [
    'millrace.yaml repeats its anchors too often: aliases (*name) may stand for 100 values at most.',
  ])
})
