import type { Storage } from '../../adapters/storage.ts'

/** A store of which some methods are other ones. */
export function overriding(storage: Storage, methods: Partial<Storage>): Storage {
  return new Proxy(storage, {
    get(target, name) {
      const value = Reflect.get(name in methods ? methods : target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** A store that counts the bytes that are asked of it, by ranges and by streams. */
export function counting(inner: Storage): { storage: Storage; bytes: () => number } {
  let bytes = 0
  const storage = overriding(inner, {
    readRange(key, offset, length, options) {
      bytes += length
      return inner.readRange(key, offset, length, options)
    },
    createReadStream(key, options) {
      const stream = inner.createReadStream(key, options)
      const push = stream.push.bind(stream)
      stream.push = (chunk: Buffer | null) => {
        bytes += chunk?.length ?? 0
        return push(chunk)
      }
      return stream
    },
  })
  return { storage, bytes: () => bytes }
}
