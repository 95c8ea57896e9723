export { type BandwidthOptions, withBandwidth } from './bandwidth.ts'
export { type StorageEvent, withObserver } from './observer.ts'
export { withPrefix } from './prefix.ts'
export { withRetry } from './retry.ts'
