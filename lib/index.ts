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
export type { PortableNames } from './archive/portable-names.ts'
export type { Owner } from './archive/rights.ts'
export { type Backups, type BackupsOptions, type Inspection, type InspectOptions, openBackups } from './backups.ts'
export { listSnapshots, type Snapshot } from './catalog.ts'
export type { CreatedSnapshot, CreateOptions, CreateProgress } from './create.ts'
export type { Damage } from './damage.ts'
export { BackupError, type BackupErrorCode } from './errors.ts'
export { readKeyFile, readPasswordFile } from './key-file.ts'
export type { Restored, RestoreOptions } from './restore.ts'
export { type BackupSource, type CommandSource, type Omissions, openCommand } from './source.ts'
export { type Remembered, State, stateFolder } from './state.ts'
export type { Verification, VerificationOrError, VerifyOptions } from './verify.ts'
export { VERSION } from './version.ts'
