import { Readable, Writable } from 'node:stream'
import { StorageError } from '../../adapters/errors.ts'
import type { Storage } from '../../adapters/storage.ts'

/**
 * A destination that could not be opened, as for want of a secret, among others that could: it fails in whatever is asked
 * of it, as a store does that is down, and the others go on.
 * @param name the destination's.
 */
export function unopened(name: string, adapter: string, cause: Error): Storage {
  const error = (operation: string) =>
    new StorageError(cause.message, { code: 'ACCESS_DENIED', adapter, operation, retryable: false, cause })
  const fail = (operation: string) => async (): Promise<never> => {
    throw error(operation)
  }
  return {
    adapter,
    location: `destination:${name}`,
    conditionalWrites: false,
    createWriteStream() {
      return new Writable({
        write: (_chunk, _encoding, callback) => callback(error('write')),
        final: (callback) => callback(error('write')),
      })
    },
    createReadStream() {
      return new Readable({
        read() {
          this.destroy(error('read'))
        },
      })
    },
    readRange: fail('readRange'),
    stat: fail('stat'),
    // biome-ignore lint/correctness/useYield: it fails before there is anything.
    async *list() {
      throw error('list')
    },
    delete: fail('delete'),
    probe: async () => ({ ok: false, steps: [{ step: 'sign-in', ok: false, ms: 0, error: error('probe') }] }),
    close: async () => {},
  }
}
