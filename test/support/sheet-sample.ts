// The sample in docs/guides. `node test/support/sheet-sample.ts` brings it up to date, and a test holds it to the code.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseConfig } from '../../lib/config/index.ts'
import { makeRecoverySheet } from '../../lib/recovery-sheet.ts'
import { sheetText } from '../../lib/recovery-sheet-text.ts'

export const SAMPLE = join(import.meta.dirname, '../../docs/guides/recovery-sheet-sample.md')

const CONFIG = `destinations:
  offsite:
    provider: s3
    profile: r2
    endpoint: https://0123456789abcdef.r2.cloudflarestorage.com
    bucket: worlds
    prefix: minecraft
    region: auto
    accessKeyId: \${SAMPLE_ACCESS_KEY_ID}
    secretAccessKey: file:secrets/offsite-secret-access-key
  local: {provider: filesystem, root: /mnt/backups}
encryption: {password: file:secrets/password}
servers:
  survival: {source: /srv/minecraft/survival/world}
`

/** The sheet of the sample, in Markdown. */
export async function sampleSheet(): Promise<string> {
  process.env.SAMPLE_ACCESS_KEY_ID = '1f2e3d4c5b6a79881f2e3d4c5b6a7988'
  const loaded = parseConfig(CONFIG, '/etc/millrace/millrace.yaml')
  return sheetText(await makeRecoverySheet(loaded, 'survival', { now: new Date('2026-11-22T10:00:00Z') }), 'md')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(SAMPLE, await sampleSheet())
