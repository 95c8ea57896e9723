export { composeBytes } from './compose.ts'
export { FRAME_BYTES, frameCount, plainSize, type SealOptions, sealedSize } from './container.ts'
export type { CryptThread, CryptThreadOptions } from './crypt-thread.ts'
export { createDecrypt, createEncrypt, type DecryptOptions } from './encrypt.ts'
export { TransformError, type TransformErrorCode } from './errors.ts'
export { createFanOut, type Destination, type DestinationStatus, type FanOut, type FanOutOptions } from './fan-out.ts'
export { createHashTee, type HashTee } from './hash-tee.ts'
export { HEADER_BYTES, type Header, parseHeader } from './header.ts'
export { IndexBuilder, type IndexEntry, type IndexHead, readIndex } from './index-frame.ts'
export {
  checkReadKeys,
  KEY_BYTES,
  PBKDF2_ITERATIONS,
  PBKDF2_MAX_ITERATIONS,
  PBKDF2_MIN_ITERATIONS,
  type ReadKeys,
  type WriteKey,
} from './keys.ts'
export { type FrameLedger, SEAL_BYTES } from './ledger.ts'
export { createMeter, type MeterOptions, type Progress } from './meter.ts'
export { openPlain, openSealed, type RangeSource, type ReadRange, type Sealed } from './open-sealed.ts'
export { type FrameExtent, openSeekable, type Seekable } from './open-seekable.ts'
export { type SealChainOptions, seal, unseal } from './seal.ts'
export { createHashThread, createOpenThread, createSealThread } from './seal-thread.ts'
export { createSeedEncrypt, SEED_OVERHEAD_BYTES, type SeedEncryptOptions } from './seed.ts'
export { createSeedDecrypt, type SeedDecryptOptions } from './seed-decrypt.ts'
export {
  type Bucket,
  type BucketOptions,
  type Clock,
  createBucket,
  createThrottle,
  type ThrottleOptions,
} from './throttle.ts'
export {
  type CompressOptions,
  type CompressTotals,
  createZstdCompress,
  ZSTD_FRAME_BYTES,
  ZSTD_LEVEL,
} from './zstd-compress.ts'
export { createZstdDecompress, type DecompressOptions } from './zstd-decompress.ts'
export type { ZstdEngine } from './zstd-engine.ts'
