export { StorageError, type StorageErrorCode } from '../adapters/errors.ts'
export { openStorage, type StorageConfig } from '../adapters/open.ts'
export type { ObjectStat, ProbeReport, Storage } from '../adapters/storage.ts'
export {
  type IndexEntry,
  type IndexHead,
  type Progress,
  TransformError,
  type TransformErrorCode,
} from '../transforms/index.ts'
export type { ArchiveWarning } from './archive/entry.ts'
export { type Backups, type BackupsOptions, type Inspection, type InspectOptions, openBackups } from './backups.ts'
export { listSnapshots, type Snapshot } from './catalog.ts'
export type { CreatedSnapshot, CreateOptions, CreateProgress, ServiceWarning } from './create.ts'
export { type DestinationResult, STALL_MS } from './destinations.ts'
export { BackupError, type BackupErrorCode } from './errors.ts'
export type { Fallback } from './fallback.ts'
export { HOOK_TIMEOUT_MS, type HookCommand, type HookOptions, runHook } from './hooks.ts'
export { readKeyFile, readPasswordFile } from './key-file.ts'
export { acquireLease, LEASE_TTL_MS, type Lease, type LeaseOptions } from './lease.ts'
export type { LeaseClock } from './lease-claims.ts'
export { type MetricUpdate, type MetricValues, writeMetrics } from './metrics.ts'
export type { Restored, RestoreOptions } from './restore.ts'
export { type BackupSource, type CommandSource, type Omissions, openCommand } from './source.ts'
export { readStatus, type Status, statusMetrics } from './status.ts'
export type { Verification, VerifyOptions } from './verify.ts'
export { VERSION } from './version.ts'
