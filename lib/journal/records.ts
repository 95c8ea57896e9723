/** What a journal is of: what another run has to do the same way. No key, no password. */
export interface JournalHead {
  v: 1
  server: string
  /** The snapshot's. Its time is when the upload was begun. */
  id: string
  /** What the index says wrote it. */
  tool: string
  /** Of the zstd that compresses: another one may give other bytes. */
  zstd: string
  /** The folder or file, or the program, without its arguments. */
  source: string
  /** The store's location: a URL without credentials. */
  location: string
  encrypted: boolean
  options: JournalOptions
}

/** The options that the bytes of an object depend on. */
export interface JournalOptions {
  level?: number | undefined
  zstdFrameBytes?: number | undefined
  iterations?: number | undefined
  /** What is taken of the source, in one text. */
  selection: string
}

/** A process that works on an upload. */
export interface JournalRun {
  host: string
  /** The machine's own id, where it has one. */
  machine: string | null
  pid: number
  /** The boot, and the time since, at which the process began; null where that cannot be told. */
  born: string | null
  /** The boot alone. */
  boot: string | null
  /** Among which processes the pid counts. */
  space: string | null
  /** ms since 1970. */
  since: number
  /** The id of its claim to the server's lease. */
  lease: string | null
}

/** What the store calls the upload. */
export interface UploadRecord {
  key: string
  /** The adapter's own words. */
  upload: string
}

/** An object that the store has committed. */
export interface CommittedObject {
  key: string
  bytes: number
  sha256: string
}

/** All that a journal says. */
export interface JournalContents {
  head: JournalHead
  /** The last process that took it up. */
  run: JournalRun
  /** Of a sealed object. */
  header: Buffer | undefined
  /** Nonce and tag of each frame, 28 bytes each. */
  seals: Buffer
  frames: number
  upload: UploadRecord | undefined
  done: CommittedObject | undefined
  /** Bytes that the store has acknowledged of that upload. */
  storedBytes: number
}
