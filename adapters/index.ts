export { StorageError, type StorageErrorCode, type StorageErrorDetails } from './errors.ts'
export { type FilesystemConfig, openFilesystem } from './filesystem.ts'
export {
  type BandwidthOptions,
  type StorageEvent,
  withBandwidth,
  withObserver,
  withPrefix,
  withRetry,
} from './layers/index.ts'
export { openMemory } from './memory.ts'
export {
  type FoundObject,
  type MultipartOptions,
  type MultipartPrimitives,
  type MultipartRules,
  MultipartWritable,
  type PartBody,
  type PartStore,
  type PrimitiveRequest,
} from './multipart.ts'
export { PART_BYTES, RING_BYTES } from './multipart-plan.ts'
export { openStorage, parseStorageUrl, type StorageConfig } from './open.ts'
export type { RetryClock, RetryPolicy } from './retry.ts'
export type { S3Config } from './s3-config.ts'
export type { S3ProfileName } from './s3-profiles.ts'
export {
  type CallOptions,
  KEY_MAX_BYTES,
  KEY_SEGMENT_MAX_BYTES,
  type ObjectStat,
  type ProbeReport,
  type ProbeStep,
  type ReadOptions,
  type Storage,
  type WriteOptions,
} from './storage.ts'
