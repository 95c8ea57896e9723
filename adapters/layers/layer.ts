import type { Readable, Writable } from 'node:stream'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from '../storage.ts'

/** A Storage that hands everything to another one: what a layer does not replace stays as it is. */
export class StorageLayer implements Storage {
  protected readonly inner: Storage
  purgeUnfinished?: NonNullable<Storage['purgeUnfinished']>
  discardUpload?: NonNullable<Storage['discardUpload']>

  constructor(inner: Storage) {
    this.inner = inner
    // Callers tell by its presence whether the store can do it.
    if (inner.purgeUnfinished) this.purgeUnfinished = (olderThanMs, options) => this.purge(olderThanMs, options)
    if (inner.discardUpload) this.discardUpload = (key, upload, options) => this.discard(key, upload, options)
  }

  get adapter(): string {
    return this.inner.adapter
  }

  get location(): string {
    return this.inner.location
  }

  get conditionalWrites(): boolean {
    return this.inner.conditionalWrites
  }

  get parallelReads(): number | undefined {
    return this.inner.parallelReads
  }

  get ownedReads(): boolean | undefined {
    return this.inner.ownedReads
  }

  createWriteStream(key: string, options?: WriteOptions): Writable {
    return this.inner.createWriteStream(key, options)
  }

  createReadStream(key: string, options?: ReadOptions): Readable {
    return this.inner.createReadStream(key, options)
  }

  readRange(
    key: string,
    offset: number,
    length: number,
    options?: CallOptions & { version?: string },
  ): Promise<Buffer> {
    return this.inner.readRange(key, offset, length, options)
  }

  stat(key: string, options?: CallOptions): Promise<ObjectStat> {
    return this.inner.stat(key, options)
  }

  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectStat> {
    return this.inner.list(prefix, options)
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.inner.delete(key, options)
  }

  probe(options?: CallOptions): Promise<ProbeReport> {
    return this.inner.probe(options)
  }

  close(): Promise<void> {
    return this.inner.close()
  }

  /** What `purgeUnfinished` does where the storage beneath has it. */
  protected purge(olderThanMs: number, options?: CallOptions & { prefix?: string }): Promise<number> {
    return this.inner.purgeUnfinished!(olderThanMs, options)
  }

  /** What `discardUpload` does where the storage beneath has it. */
  protected discard(key: string, upload: string, options?: CallOptions): Promise<void> {
    return this.inner.discardUpload!(key, upload, options)
  }
}
