import { withBandwidth } from '../../adapters/layers/index.ts'
import { openStorage, type StorageConfig } from '../../adapters/open.ts'
import { defaultPartBytes, rulesOf } from './parts.ts'
import type { BenchStore } from './store.ts'

/** What a store is measured with beside its settings. */
export interface TargetOptions {
  /** Bytes a second that the config allows each way. */
  bandwidth?: number | undefined
  readBandwidth?: number | undefined
  /** Whose backups go there; undefined where that is not known. */
  server: string | undefined
  /** What a backup is expected to store. */
  expectedSize: number | undefined
}

/** Stores that make a folder of a key's first segment, and leave it when it is empty. */
const KEEP_FOLDERS = ['google-drive', 'dropbox']

/** What `measureStore` needs to know of a store with these settings. Nothing is opened yet. */
export async function benchStore(config: StorageConfig, options: TargetOptions): Promise<BenchStore> {
  const { bandwidth, readBandwidth, server, expectedSize } = options
  const rules = await rulesOf(config)
  const given = 'partBytes' in config ? config.partBytes : undefined
  const wanted = given ?? (await defaultPartBytes(config))
  const isLocal = config.provider === 'filesystem' || config.provider === 'memory'
  const open = async (partBytes: number | undefined) => {
    const storage = await openStorage(
      rules && partBytes !== undefined ? ({ ...config, partBytes } as StorageConfig) : config,
    )
    if (bandwidth === undefined && readBandwidth === undefined) return storage
    const limited = withBandwidth(storage, { writeBytesPerSecond: bandwidth, readBytesPerSecond: readBandwidth })
    return storage.erase ? Object.assign(limited, { erase: storage.erase.bind(storage) }) : limited
  }
  return {
    open,
    kind: isLocal ? 'folder' : 'remote',
    parts: rules && { rules, wanted, expectedSize },
    bandwidth,
    root: config.provider === 'filesystem' ? config.root : undefined,
    prefix: server === undefined || KEEP_FOLDERS.includes(config.provider) ? '' : `${server}/`,
  }
}
