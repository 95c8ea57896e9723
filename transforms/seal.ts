import type { Duplex } from 'node:stream'
import { composeBytes } from './compose.ts'
import type { SealOptions } from './container.ts'
import { createDecrypt, createEncrypt } from './encrypt.ts'
import type { ReadKeys } from './keys.ts'
import { type CompressOptions, createZstdCompress } from './zstd-compress.ts'
import { createZstdDecompress, type DecompressOptions } from './zstd-decompress.ts'

/** What `seal` takes; `zstdFrameBytes` is the compression's frame, `frameBytes` the container's. */
export interface SealChainOptions extends Omit<SealOptions, 'onConsumed'>, Omit<CompressOptions, 'frameBytes'> {
  zstdFrameBytes?: number | undefined
}

/**
 * The whole way out as one stream: zstd frames with index and seek table, in a version 1 container.
 * @returns a Duplex: plain bytes in, the object's bytes out.
 * @throws TransformError BAD_KEY, BAD_OPTION, UNSUPPORTED at once. The stream fails as its two halves do.
 */
export function seal(options: SealChainOptions): Duplex {
  const { password, key, frameBytes, iterations, ledger, zstdFrameBytes, ...compress } = options
  const encrypt = createEncrypt({ password, key, frameBytes, iterations, ledger })
  try {
    return composeBytes([createZstdCompress({ ...compress, frameBytes: zstdFrameBytes }), encrypt])
  } catch (error) {
    encrypt.destroy()
    throw error
  }
}

/**
 * The whole way back as one stream.
 * @returns a Duplex: an object's bytes in, plain bytes out.
 * @throws TransformError BAD_KEY, BAD_OPTION at once. The stream fails as `createDecrypt` and `createZstdDecompress` do.
 */
export function unseal(options: ReadKeys & Omit<DecompressOptions, 'onConsumed'>): Duplex {
  const { password, key, threads } = options
  return composeBytes([createDecrypt({ password, key }), createZstdDecompress({ threads })])
}
