import { openBackups } from '../../backups.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatDuration } from '../format.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'

interface VerifyOptions extends SecretOptions {
  from: string
  server: string
  quick?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

const EXIT_OF = { ok: EXIT.GOOD, unverified: EXIT.INCOMPLETE, damaged: EXIT.DAMAGED }

export async function verifyCommand(
  id: string,
  options: VerifyOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const encryption = options.encryption !== false
  const keys = encryption && !options.quick ? await findKeys(options, 'read') : {}
  const { quick, allowPlain, allowRenamed } = options
  const backups = await openBackups({
    storage: options.from,
    server: options.server,
    encryption: encryption && !options.quick,
    ...keys,
    onNotice: output.notice,
  })
  try {
    const found = await backups.verify(id, { quick, allowPlain, allowRenamed, signal, onProgress: output.progress })
    const { status, reason, storedBytes, elapsedMs } = found
    const what = quick ? 'its companion, header and size were looked at' : `all ${formatBytes(storedBytes)} were read`
    const text = `${found.id}: ${status}${reason ? `. ${reason}` : ''} (${what}, ${formatDuration(elapsedMs)})`
    if (status === 'damaged') {
      output.result('verification', found, text)
      if (!output.json) process.stderr.write(`millrace: snapshot ${found.id} is damaged; use another one\n`)
    } else {
      output.result('verification', found, text)
    }
    return EXIT_OF[status]
  } finally {
    await backups.close()
  }
}
