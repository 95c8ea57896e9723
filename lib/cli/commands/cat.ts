import { pipeline } from 'node:stream/promises'
import { openBackups } from '../../backups.ts'
import { BackupError } from '../../errors.ts'
import { EXIT } from '../exit-codes.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { fallbackTo, storesOf } from '../stores.ts'

interface CatOptions extends SecretOptions {
  from: string[]
  server: string
  json?: boolean
  allowUnverified?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

export async function catCommand(
  id: string,
  path: string | undefined,
  options: CatOptions,
  { output, signal }: Invocation,
): Promise<number> {
  if (options.json) throw new BackupError('USAGE', 'cat writes a file as it is: it has no --json.')
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'read') : {}
  const onFallback = fallbackTo(output)
  const backups = await openBackups({
    ...storesOf(options.from),
    server: options.server,
    encryption,
    onFallback,
    onNotice: output.notice,
    ...keys,
  })
  try {
    const { allowUnverified, allowPlain, allowRenamed } = options
    const stream = await backups.read(id, path, { allowUnverified, allowPlain, allowRenamed, signal })
    await pipeline(stream, process.stdout, { end: false, signal })
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}
