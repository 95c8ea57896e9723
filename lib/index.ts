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
export type { Adopted, AdoptOptions } from './adopt.ts'
export type { ArchiveWarning } from './archive/entry.ts'
export type { PortableNames } from './archive/portable-names.ts'
export type { Owner } from './archive/rights.ts'
export {
  type Backups,
  type BackupsOptions,
  type Inspection,
  type InspectOptions,
  openBackups,
  type ReadOptions,
  type ServerPruneOptions,
  type ServerVerifyOptions,
} from './backups.ts'
export { type ListedSnapshot, listSnapshots, type Snapshot } from './catalog.ts'
export type { CliEvent } from './cli/events.ts'
export {
  type Config,
  createOptionsOf,
  type DestinationConfig,
  findConfigFile,
  type LoadedConfig,
  loadConfig,
  type OpenServerOptions,
  openDestination,
  openServer,
  parseConfig,
  resolveSecret,
  type ServerConfig,
  type ServerSettings,
  serverNames,
  serverSettings,
} from './config/index.ts'
export type { CreatedSnapshot, CreateOptions, CreateProgress, ServiceWarning } from './create.ts'
export type { Damage } from './damage.ts'
export { type DestinationResult, STALL_MS } from './destinations.ts'
export { BackupError, type BackupErrorCode } from './errors.ts'
export { GAME_DEFAULTS, type GameDefaults, type LeftOut, type SelectionOptions } from './exclude.ts'
export type { Fallback } from './fallback.ts'
export type { KnownHead } from './head-cache.ts'
export { holdHeap } from './heap.ts'
export { type RecordedRun, type RunCommand, type RunOutcome, type RunRecord, readRuns, recordRun } from './history.ts'
export { HOOK_TIMEOUT_MS, type HookCommand, type HookOptions, runHook } from './hooks.ts'
export type { TakenUpload } from './journal/attempt.ts'
export { type LeftUpload, leftUploads } from './journal/left.ts'
export type { ResumableOptions } from './journal/resumable.ts'
export type { Destined, StoreLocation } from './kept.ts'
export { readKeyFile, readPasswordFile } from './key-file.ts'
export { type DescribeOptions, describeSnapshots, type KnownSnapshot } from './known.ts'
export { acquireLease, LEASE_TTL_MS, type Lease, type LeaseOptions } from './lease.ts'
export type { LeaseClock } from './lease-claims.ts'
export { type MetricUpdate, type MetricValues, writeMetrics } from './metrics.ts'
export type { Pin } from './pins.ts'
export { type BackupPlan, type PlanOptions, planBackup } from './plan.ts'
export type { PrunedSnapshot, PruneOptions, PruneOutcome, PruneProblem, PruneProgress, PruneReport } from './prune.ts'
export { type CommandQuiescerOptions, createCommandQuiescer } from './quiesce/command.ts'
export { createMinecraftQuiescer, type MinecraftOptions } from './quiesce/minecraft.ts'
export type { QuiesceLevel, QuiesceOutcome, Quiescer } from './quiesce/quiescer.ts'
export type { RconAddress } from './quiesce/rcon.ts'
export { leftSaving, parseAddress, type Resumed, type ResumeOptions, resumeSaving } from './quiesce/resume.ts'
export { type CollectOptions, collectReport, type ReportPlace, type ReportStore } from './report/collect.ts'
export {
  buildReport,
  type ReportFacts,
  type ReportModel,
  type ServerFacts,
  type ServerReport,
  type StoreFacts,
} from './report/model.ts'
export { renderReport } from './report/page.ts'
export type { Restored, RestoreOptions } from './restore.ts'
export {
  DEFAULT_POLICY,
  type Decision,
  decideRetention,
  type RetentionPolicy,
  type RetentionSnapshot,
} from './retention.ts'
export { type BackupSource, type CommandSource, type Omissions, openCommand } from './source.ts'
export { defaultStateFolder } from './state.ts'
export { readStatus, type Status, statusMetrics } from './status.ts'
export type { Verification, VerificationOrError, VerifyOptions } from './verify.ts'
export { type Remembered, VerifyNotes } from './verify-notes.ts'
export { VERSION } from './version.ts'
