import assert from 'node:assert/strict'
import { exitCodeOf } from '../../lib/cli/exit-codes.ts'
import { parseConfig } from '../../lib/config/index.ts'
import { BackupError } from '../../lib/errors.ts'

/** In place of a password, to see that it is never repeated. */
export const SECRET = 'hunter2-S3cr3t'

/** What is wrong with a config, without the file's name. Fails for one that is good, and for any other error. */
export function problems(text: string): string[] {
  try {
    parseConfig(text, 'millrace.yaml')
  } catch (error) {
    assert.ok(error instanceof BackupError, String(error))
    assert.equal(exitCodeOf(error), 2)
    assert.ok(!error.message.includes(SECRET), error.message)
    assert.doesNotMatch(error.message, /^\s+at |undefined|\[object|zod/im)
    return error.message.split('\n').map((line) => line.replace(/^millrace\.yaml:/, ''))
  }
  return assert.fail('the config was taken')
}

export const DESTINATIONS = 'destinations: { local: { provider: filesystem, root: store } }\n'

/** A config with one server, which has these fields as well. */
export const server = (fields: string) => `${DESTINATIONS}servers:\n  survival: { source: world, ${fields} }\n`

/** A config with one destination, which has these fields. */
export const destination = (fields: string) =>
  `destinations: { offsite: { ${fields} } }\nservers: { survival: { source: world } }\n`
