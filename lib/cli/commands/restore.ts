import { openBackups } from '../../backups.ts'
import { EXIT } from '../exit-codes.ts'
import { formatBytes, formatCount, formatDuration, formatRate } from '../format.ts'
import type { Invocation } from '../main.ts'
import { findKeys, type SecretOptions } from '../secrets.ts'

interface RestoreOptions extends SecretOptions {
  from: string
  server: string
  target: string
  include?: string[]
  overwrite?: boolean
  allowUnverified?: boolean
  allowPlain?: boolean
  allowRenamed?: boolean
}

export async function restoreCommand(
  id: string,
  options: RestoreOptions,
  { output, signal }: Invocation,
): Promise<number> {
  const encryption = options.encryption !== false
  const keys = encryption ? await findKeys(options, 'read') : {}
  const { overwrite, allowUnverified, allowPlain, allowRenamed } = options
  const backups = await openBackups({
    storage: options.from,
    server: options.server,
    encryption,
    ...keys,
    onNotice: output.notice,
  })
  try {
    let warnings = 0
    const restored = await backups.restore(id, options.target, {
      include: options.include,
      overwrite,
      allowUnverified,
      allowPlain,
      allowRenamed,
      signal,
      onProgress: output.progress,
      onWarning(warning) {
        warnings += 1
        output.warning(warning)
      },
    })
    const { files, bytes, target, elapsedMs, verified } = restored
    output.result(
      'restored',
      { ...restored, warnings },
      `Restored ${formatCount(files, 'file')} of ${restored.id} into ${target}\n` +
        `  ${formatBytes(bytes)} in ${formatDuration(elapsedMs)}, ${formatRate((bytes * 1000) / elapsedMs)}; ${howChecked(options, verified)}`,
    )
    return warnings > 0 || !verified ? EXIT.INCOMPLETE : EXIT.GOOD
  } finally {
    await backups.close()
  }
}

function howChecked({ include }: RestoreOptions, verified: boolean): string {
  if (!verified) return 'NOT verified: no companion fits'
  return include ? 'every frame that was read is authentic' : 'SHA-256 as its companion says'
}
