/** A config with a word on each part. It is held to the schema by a test, and is what `millrace config example` prints. */
export const EXAMPLE = `# yaml-language-server: $schema=./millrace.schema.json
# (for editors; \`millrace config schema > millrace.schema.json\` writes that file)
#
# What millrace backs up, where to, when, and what stays. \`millrace config check\` looks at it.
# A secret is never written here, only where it is: \${NAME} of the environment, file:PATH, or command:PROGRAM ARGUMENTS.
# Relative paths are relative to this file; ~/ is the home of whoever runs millrace.

# Where backups go, each by a name of your own. The first that a server names is the one that is read from.
destinations:
  local:
    provider: filesystem
    root: /mnt/backups
  offsite:
    provider: s3
    bucket: worlds
    prefix: minecraft
    region: eu-central-1
    # Without the two keys: where the AWS SDK looks (AWS_ACCESS_KEY_ID, profiles, roles).
    accessKeyId: \${S3_ACCESS_KEY_ID}
    secretAccessKey: file:s3-secret
    bandwidth: 20MiB/s
  # drive:                      # what \`millrace login google-drive\` keeps is used
  #   provider: google-drive
  #   folder: backups/minecraft

# What new snapshots are encrypted with. A lost password means lost backups.
encryption:
  password: file:password
  # previousPasswords: [file:old-password]   # tried when older snapshots are read

# For servers that do not say otherwise. What a server says replaces the whole field.
defaults:
  destinations: [local, offsite]
  schedule: '@hourly'
  retention:
    keepHourly: 24
    keepDaily: 14
    keepWeekly: 8
  # The newest snapshot should never be older; \`millrace status\` exits with 6 then.
  maxAge: 3h

# What is backed up. The name is the folder of its backups in each destination: do not change it.
servers:
  survival:
    source: /srv/minecraft/survival/world
    exclude: ['*.tmp', dynmap/]
    # Saving is off while the world is read.
    quiesce:
      by: rcon
      address: localhost:25575
      password: file:rcon-password
      allowStopped: true
    verify:
      schedule: 30 4 * * sun
      how: 5%
  creative:
    source: /srv/minecraft/creative/world
    destinations: [local]
    schedule:
      cron: 0 */6 * * *
      timezone: Europe/Berlin
      jitter: 10m
    maxAge: 8h
  # database:
  #   sourceCommand: [pg_dump, --format=custom, game]
`
