import type { Readable, Writable } from 'node:stream'
import { StorageError } from '../errors.ts'
import { checkKey, quoteKey } from '../keys.ts'
import { probeStorage } from '../probe.ts'
import type { CallOptions, ObjectStat, ProbeReport, ReadOptions, Storage, WriteOptions } from '../storage.ts'
import { StorageLayer } from './layer.ts'

/**
 * A part of a storage, as a storage of its own: every key lives under `prefix`, and what `stat` and `list` give is
 * relative to it. The limits of a key hold for the whole of it, prefix included, and errors name the whole key.
 * Closing it closes the storage beneath.
 * @param prefix one or more segments, each as in a key, with a slash at its end: `worlds/eu-1/`.
 * @returns a Storage whose probe works under the prefix too. A store that refuses the credentials with ACCESS_DENIED
 *   shows it in each step there, not at sign-in: here it cannot be told from a right that is missing.
 * @throws StorageError INVALID for a prefix that no key could begin with.
 */
export function withPrefix(storage: Storage, prefix: string): Storage {
  if (typeof prefix !== 'string' || !prefix.endsWith('/')) {
    throw new StorageError(`The prefix ${quoteKey(prefix)} does not end in a slash.`, {
      code: 'INVALID',
      adapter: storage.adapter,
      operation: 'withPrefix',
    })
  }
  checkKey(prefix.slice(0, -1), storage.adapter, 'withPrefix')
  return new PrefixStorage(storage, prefix)
}

class PrefixStorage extends StorageLayer {
  readonly #prefix: string

  constructor(inner: Storage, prefix: string) {
    super(inner)
    this.#prefix = prefix
  }

  override get location(): string {
    const [, base = '', query = ''] = /^([^?#]*)(.*)$/s.exec(this.inner.location) ?? []
    const joint = /[:/]$/.test(base) ? '' : '/'
    const path = this.#prefix.split('/').map(encodeURIComponent).join('/')
    return `${base}${joint}${path}${query}`
  }

  override createWriteStream(key: string, options?: WriteOptions): Writable {
    return this.inner.createWriteStream(this.#fullKey(key, 'createWriteStream'), options)
  }

  override createReadStream(key: string, options?: ReadOptions): Readable {
    return this.inner.createReadStream(this.#fullKey(key, 'createReadStream'), options)
  }

  override async readRange(
    key: string,
    offset: number,
    length: number,
    options?: CallOptions & { version?: string },
  ): Promise<Buffer> {
    return this.inner.readRange(this.#fullKey(key, 'readRange'), offset, length, options)
  }

  override async stat(key: string, options?: CallOptions): Promise<ObjectStat> {
    const found = await this.inner.stat(this.#fullKey(key, 'stat'), options)
    return this.#relative(found, '', 'stat')
  }

  override async *list(prefix: string, options?: CallOptions): AsyncGenerator<ObjectStat> {
    for await (const found of this.inner.list(this.#prefix + prefix, options)) {
      yield this.#relative(found, prefix, 'list')
    }
  }

  override async delete(key: string, options?: CallOptions): Promise<void> {
    await this.inner.delete(this.#fullKey(key, 'delete'), options)
  }

  override probe(options: CallOptions = {}): Promise<ProbeReport> {
    const signIn = async () => {
      try {
        for await (const _ of this.list('', options)) break
      } catch (error) {
        // A right that is missing shows in its own step.
        if (!(error instanceof StorageError && error.code === 'ACCESS_DENIED')) throw error
      }
    }
    return probeStorage(this, signIn, options)
  }

  protected override purge(olderThanMs: number, options: CallOptions & { prefix?: string } = {}): Promise<number> {
    return super.purge(olderThanMs, { ...options, prefix: this.#prefix + (options.prefix ?? '') })
  }

  protected override async discard(key: string, upload: string, options?: CallOptions): Promise<void> {
    await super.discard(this.#fullKey(key, 'discardUpload'), upload, options)
  }

  /** Checked alone first: beside the prefix, what is no string would become one. */
  #fullKey(key: string, operation: string): string {
    checkKey(key, this.adapter, operation)
    const fullKey = this.#prefix + key
    checkKey(fullKey, this.adapter, operation)
    return fullKey
  }

  #relative(found: ObjectStat, prefix: string, operation: string): ObjectStat {
    if (found.key.startsWith(this.#prefix + prefix)) return { ...found, key: found.key.slice(this.#prefix.length) }
    const message = `The store named ${quoteKey(found.key)}, which is not under ${quoteKey(this.#prefix + prefix)}.`
    throw new StorageError(message, { code: 'CORRUPT', adapter: this.adapter, operation })
  }
}
