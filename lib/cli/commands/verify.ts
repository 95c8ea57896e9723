import { openBackups } from '../../backups.ts'
import type { Fallback } from '../../fallback.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatDuration } from '../format.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'
import { fallbackTo, nowSeconds, reportMetrics, storesOf } from '../stores.ts'

interface VerifyOptions extends SecretOptions {
  from: string[]
  server: string
  quick?: boolean
  metricsFile?: string
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
  let fallbacks = 0
  const fallBack = (fallback: Fallback) => {
    fallbacks += 1
    fallbackTo(output)(fallback)
  }
  const backups = await openBackups({
    ...storesOf(options.from),
    onFallback: fallBack,
    server: options.server,
    encryption: encryption && !options.quick,
    ...keys,
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
    const lastVerified = status === 'ok' && !quick ? nowSeconds() : undefined
    await reportMetrics(options.metricsFile, options.server, backups.storages.slice(0, 1), output, () =>
      fallbacks === 0 ? { lastVerified } : {},
    )
    // One copy is good, and another one is not.
    return status === 'ok' && fallbacks > 0 ? EXIT.INCOMPLETE : EXIT_OF[status]
  } finally {
    await backups.close()
  }
}
