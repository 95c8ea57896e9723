export type { B2Config } from './backblaze-b2-client.ts'
export type { DropboxConfig } from './dropbox-config.ts'
export { StorageError, type StorageErrorCode, type StorageErrorDetails } from './errors.ts'
export { type FilesystemConfig, openFilesystem } from './filesystem.ts'
export type { GoogleDriveConfig } from './google-drive-client.ts'
export { checkKey, quoteKey } from './keys.ts'
export {
  type BandwidthOptions,
  CALL_MS,
  type RetryLayerPolicy,
  type StorageEvent,
  StorageLayer,
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
export { refuseJournal, type TakenUp, type TakingUpStore } from './multipart-taking-up.ts'
export { openStorage, parseStorageUrl, type StorageConfig } from './open.ts'
export { probeStorage } from './probe.ts'
export {
  checkExtent,
  checkRange,
  collectRange,
  type OpenedRange,
  type RangeRequest,
  READ_IDLE_MS,
  ResumingReadable,
  type ResumingReadOptions,
  rangePastEnd,
  readRangeByStream,
} from './read.ts'
export {
  type ParallelReadOptions,
  READ_CONNECTIONS,
  READ_RANGE_BYTES,
  READ_RING_BYTES,
  readParallel,
} from './read-parallel.ts'
export {
  abortError,
  CALL_RETRY,
  isAbort,
  PART_RETRY,
  type RetryClock,
  type RetryPolicy,
  retry,
  STORE_WAITS,
  type StoreWait,
  systemClock,
  throwIfAborted,
} from './retry.ts'
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
  type StoredPart,
  type UploadJournal,
  type WriteOptions,
} from './storage.ts'
