import { openBackups } from '../../backups.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatDuration } from '../format.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'

interface AdoptCommandOptions extends SecretOptions {
  from: string
  server: string
  allowPlain?: boolean
}

export async function adoptCommand(
  id: string,
  options: AdoptCommandOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'read') : {}
  const { from, server, allowPlain } = options
  const backups = await openBackups({ storage: from, server, encryption, ...keys, onNotice: output.notice })
  try {
    const adopted = await backups.adopt(id, { allowPlain, signal, onProgress: output.progress })
    const text = `Adopted ${id}: all ${formatBytes(adopted.storedBytes)} were read and are whole (${formatDuration(adopted.elapsedMs)}). It is complete now.`
    output.result('adopted', adopted, text)
    return EXIT.GOOD
  } finally {
    await backups.close()
  }
}
