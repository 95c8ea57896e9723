/* What is measured of a machine, a folder and its stores, and all that `recommend` goes by. */

/** What went through a stage in a time. */
export interface Rate {
  /** Bytes that went in. */
  bytes: number
  /** Wall time. */
  seconds: number
  /** User and system time of this process, all its threads together. */
  cpuSeconds: number
  /** How long the one thread on which JavaScript runs was at work. */
  mainSeconds: number
}

/** Reading the source. */
export interface ReadFact extends Rate {
  /** The share that came from a disk and not from the system's memory, 0 to 1; null where the system does not say. */
  diskShare: number | null
}

/** What came out of a stage that makes bytes fewer. */
export interface PackedRate extends Rate {
  storedBytes: number
}

/** Compressing at one level. */
export interface LevelFact extends PackedRate {
  level: number
}

/** One scratch object that was written to a store. */
export interface UploadFact extends Rate {
  /** Bytes of a part; null where the store has no parts. */
  partBytes: number | null
  /** Parts on their way at once, at most. */
  inFlight: number | null
}

/** What was measured of one store. */
export interface StoreFacts {
  /** Its location: a URL without credentials. */
  destination: string
  /** A folder of this machine, or something behind a line. */
  kind: 'folder' | 'remote'
  /** Bytes of a part as backups to it are made now; null where there are none. */
  partBytes: number | null
  uploads: UploadFact[]
  /** Why sizes of parts were not compared; null where they were, or there are none. */
  notCompared: string | null
  /** null: it was not read. */
  download: Rate | null
  /** What the config lets backups send, in bytes a second. */
  bandwidth: number | null
  /** All that was sent, what was sent to try it included. */
  sentBytes: number
}

/** What the measurements were made on. */
export interface SourceFacts {
  kind: 'folder' | 'file' | 'synthetic'
  /** null for synthetic data. */
  path: string | null
  /** What a backup would read; null for synthetic data. */
  bytes: number | null
  files: number | null
  /** What the stages were fed with, again and again. */
  sampleBytes: number
}

/** All of it. */
export interface Measured {
  source: SourceFacts
  /** What this machine can run at once. */
  cores: number
  /** Frames that are compressed at once. */
  threads: number
  /** The level that backups are made with now; it is among those of `compression`. */
  level: number
  /** null for synthetic data. */
  read: ReadFact | null
  compression: LevelFact[]
  encryption: Rate
  hashing: Rate
  /** All stages together at `level`, thrown away at the end. */
  chain: PackedRate
  stores: StoreFacts[]
}

/** @returns bytes a second; 0 where no time has passed. */
export function speedOf({ bytes, seconds }: Pick<Rate, 'bytes' | 'seconds'>): number {
  return seconds > 0 ? bytes / seconds : 0
}

/** Several passes as one. */
export function together(rates: readonly Rate[]): Rate {
  const sum = { bytes: 0, seconds: 0, cpuSeconds: 0, mainSeconds: 0 }
  for (const { bytes, seconds, cpuSeconds, mainSeconds } of rates) {
    sum.bytes += bytes
    sum.seconds += seconds
    sum.cpuSeconds += cpuSeconds
    sum.mainSeconds += mainSeconds
  }
  return sum
}
