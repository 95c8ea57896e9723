export { type BandwidthOptions, withBandwidth } from './bandwidth.ts'
export { type StorageEvent, withObserver } from './observer.ts'
export { withPrefix } from './prefix.ts'
export { CALL_MS, type RetryLayerPolicy, withRetry } from './retry.ts'
