import type { Readable, Writable } from 'node:stream'

/** What a store says of one object. */
export interface ObjectStat {
  /** The whole key, as given to `createWriteStream`. */
  key: string
  /** Bytes as stored. */
  size: number
  /** When the store took it, in its own clock. */
  modified: Date
  /** What pins a read to exactly these bytes (ETag, version id, revision …). Opaque; compare for equality only. */
  version?: string
  /** A digest the store keeps itself, hex in lower case. */
  checksum?: { algorithm: string; value: string }
}

/** A part that a store has. */
export interface StoredPart {
  /** From 1. */
  number: number
  bytes: number
  /** What the store says of it. */
  checksum: string
  /** Whether this stream sent it; else an earlier one had. */
  sent: boolean
}

/** What remembers an upload, so that another process can take it up. */
export interface UploadJournal {
  /** What `begun` was given by the stream whose upload is taken up; undefined to begin one. */
  readonly earlier: string | undefined
  /**
   * How many of the object's first bytes are certain to be given again as they were. A store that cannot compare what
   * it holds goes on only where it holds no more than these.
   */
  readonly sureBytes: number
  /** Takes down what names the upload. Awaited before its first byte is sent. */
  begun(upload: string): Promise<void>
  /** Awaited before bytes are sent: when it resolves, all that the stream had been given by then may leave. */
  ready(): Promise<void>
  /** Told of each part that the store has. */
  stored(part: StoredPart): void
}

/** What a store is told of an object that is written. */
export interface WriteOptions {
  /** The exact number of bytes to come. Another count fails before the commit. */
  size?: number
  /** An upper bound of the number of bytes to come. A hint: it only picks the part size. */
  expectedSize?: number
  /** Fail with CONFLICT instead of replacing an object of that key. INVALID where `conditionalWrites` is false. */
  ifAbsent?: boolean
  /**
   * Told of each chunk that the stream has copied or stored, so that its memory may be used again. A hint: an adapter
   * that keeps chunks never calls it.
   */
  onConsumed?: (chunk: Buffer) => void
  /** Told, in a sentence, what was lost on the way and made good, such as an upload session that was begun anew. */
  onNotice?: (message: string) => void
  /**
   * Makes the upload one that another process can take up; INVALID where the store has no `discardUpload`. Then
   * `destroy()` before the commit leaves the upload at the store, for whoever takes it up or discards it.
   */
  journal?: UploadJournal
  /** Aborts as `destroy()` does; the stream then fails with AbortError. */
  signal?: AbortSignal
}

/** What is read of an object. */
export interface ReadOptions {
  /** First byte, from 0. At or past the object's end there is nothing to read, which is no error, as in node:fs. */
  start?: number
  /** Last byte, inclusive, as in node:fs. An `end` past the object reads to its end. */
  end?: number
  /** A version from `stat`: anything else there is an error (CONFLICT), never other bytes. */
  version?: string
  signal?: AbortSignal
}

/** What every call takes. */
export interface CallOptions {
  signal?: AbortSignal
}

/** One step of `probe`. */
export interface ProbeStep {
  step:
    | 'sign-in'
    | 'list'
    | 'write'
    | 'stat'
    | 'read'
    | 'range'
    | 'multipart'
    | 'abort'
    | 'conditional'
    | 'checksum'
    | 'delete'
  ok: boolean
  ms: number
  /** Why it failed, without any secret. */
  error?: Error
}

/** What a probe has found. */
export interface ProbeReport {
  ok: boolean
  steps: ProbeStep[]
  /** What the store was seen to do where stores differ, whatever is said of it; the Storage goes by it from now on. */
  found?: Record<string, boolean | string>
}

/**
 * A place that keeps objects under keys. Every adapter gives the guarantees below; `test/contract/storage.ts`
 * (`millrace/testing`) holds each of them to these words.
 *
 * **Keys.** At most 1,024 bytes of UTF-8, segments (between slashes) of 1 to 250 bytes, no segment `.` or `..`, no
 * control characters. Anything else is INVALID before a request is made.
 *
 * **Writing.** `finish` means committed: the store acknowledged the object, and the size that it reports equals the
 * bytes sent. A write replaces atomically: a reader sees the old object or the new one, whole, never a part, and one
 * object is left. `destroy()` before the commit aborts: requests are signalled and awaited, the upload is cancelled at
 * the store, then `close` comes; no part, session or object is left. `destroy()` during a commit lets the request
 * settle within a deadline and, if it was committed after all, removes exactly that object. `destroy()` after the
 * commit does nothing. `close` always comes, so `pipeline` always settles. No request is made before the first byte or
 * the end. An abort rejects with an error whose `name` is `AbortError`.
 *
 * **Taking up.** Where there is a `discardUpload`, a stream with a `journal` whose `earlier` names an upload of the same
 * key goes on with it. It is given all bytes of the object from the first on. What the store holds is asked, never
 * assumed, and is sent again unless the store's own checksum of it is that of the bytes given. An upload that has become
 * the object is not sent again; one that is gone is begun anew.
 *
 * **Reading.** A stream gives exactly the bytes asked for, or fails: ending early is an error. All bytes of one stream
 * are of one version of the object.
 *
 * **Listing.** Lazy, in no promised order. A page that fails is an error, never a short list. A prefix is a plain
 * string prefix: end it in a slash, or `world` also matches `world2/…`.
 *
 * **Failing.** Everything rejects with a {@link StorageError} (or AbortError). Its message holds no secret.
 */
export interface Storage {
  /** The adapter's name: `filesystem`, `memory`, `s3` … */
  readonly adapter: string
  /** Where this store is, for people: a URL without credentials. */
  readonly location: string
  /** Whether the store honours `ifAbsent`. */
  readonly conditionalWrites: boolean
  /**
   * How many ranged reads at once the adapter advises for a large object, where one connection does not fill the line;
   * see `readParallel`. Absent: one read is as fast as several.
   */
  readonly parallelReads?: number | undefined
  /**
   * Whether a chunk of a read stream belongs to the reader alone where it fills its ArrayBuffer, so that the reader may
   * give that memory back, or write over it, as soon as it is done with the chunk. Absent: it may not.
   */
  readonly ownedReads?: boolean | undefined

  /**
   * Opens a stream whose `finish` is the commit. Throws StorageError INVALID at once for a bad key, a `size` that the
   * store cannot hold, or an `ifAbsent` that it cannot honour.
   */
  createWriteStream(key: string, options?: WriteOptions): Writable
  /** Opens a stream of an object's bytes, or of a range of them. It fails with NOT_FOUND when there is none. */
  createReadStream(key: string, options?: ReadOptions): Readable
  /**
   * Reads `length` bytes from `offset`.
   * @returns exactly `length` bytes.
   * @throws StorageError NOT_FOUND; INVALID when the range passes the object's end; CONFLICT for another version.
   */
  readRange(key: string, offset: number, length: number, options?: CallOptions & { version?: string }): Promise<Buffer>
  /** @throws StorageError NOT_FOUND when there is no such object. There is no `exists`: it would hide refused access. */
  stat(key: string, options?: CallOptions): Promise<ObjectStat>
  /** Every object whose key starts with `prefix` (`''`: all). */
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectStat>
  /** Removes an object. An absent one is success. */
  delete(key: string, options?: CallOptions): Promise<void>
  /**
   * Removes an object of few versions for good, in a store that may keep those that `delete` hides; for what was only to
   * try something. Absent: `delete` leaves nothing. A layer does not have it.
   */
  erase?(key: string, options?: CallOptions): Promise<void>
  /**
   * Tests the credentials and rights without a backup: signs in, lists, writes, reads, ranges and deletes one small
   * canary object of its own. It never throws for a refusal: the report says which step failed and why.
   */
  probe(options?: CallOptions): Promise<ProbeReport>
  /**
   * Cancels uploads that were begun and never finished.
   * @param olderThanMs those begun more than so many ms ago; of 0 all of them, whatever the clocks say.
   * @returns how many were cancelled.
   * @throws StorageError INVALID for no number.
   */
  purgeUnfinished?(olderThanMs: number, options?: CallOptions & { prefix?: string }): Promise<number>
  /**
   * Cancels an upload that a stream with a journal has left. One that is gone is success.
   * @param upload what `UploadJournal.begun` was given.
   */
  discardUpload?(key: string, upload: string, options?: CallOptions): Promise<void>
  /** Lets go of sockets and timers. The Storage cannot be used after it. */
  close(): Promise<void>
}

/** The longest key, in bytes of UTF-8. */
export const KEY_MAX_BYTES = 1024
/** The longest part of a key between two slashes, in bytes of UTF-8. */
export const KEY_SEGMENT_MAX_BYTES = 250
