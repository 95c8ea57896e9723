import { listFileNames, listFileVersions, listUnfinished } from './b2-lists.ts'
import { type B2Store, type FakeKey, refusal } from './b2-store.ts'

type Body = Record<string, unknown>

export interface Call {
  /** The fields that a call takes: B2 refuses others. A question mark marks those that may be absent. */
  fields: string[]
  capability: string
  work: (body: Body, key: FakeKey, origin: string) => Body
}

export interface CallContext {
  store: B2Store
  minPartBytes: number
  /** Makes an upload URL for a bucket or a large file. */
  giveUrl(key: FakeKey, kind: 'b2_upload_file' | 'b2_upload_part', target: string, base: string): Body
}

/** The calls with JSON in and out, by their names: https://www.backblaze.com/apidocs */
export function apiCalls({ store, minPartBytes, giveUrl }: CallContext): Record<string, Call> {
  return {
    b2_list_buckets: {
      fields: ['accountId', 'bucketId?', 'bucketName?', 'bucketTypes?'],
      capability: 'listBuckets',
      work: ({ bucketId, bucketName }, { bucketIds }) => {
        const { accountId } = store
        const asked = store.buckets.filter(
          (one) => (!bucketId || one.bucketId === bucketId) && (!bucketName || one.bucketName === bucketName),
        )
        if (bucketIds && (asked.length !== 1 || !bucketIds.includes(asked[0]!.bucketId)))
          throw refusal(401, 'unauthorized')
        const about = { bucketType: 'allPrivate', bucketInfo: {}, corsRules: [], lifecycleRules: [], revision: 1 }
        return { buckets: asked.map((bucket) => ({ accountId, ...bucket, ...about })) }
      },
    },
    b2_create_bucket: {
      fields: ['accountId', 'bucketName', 'bucketType', 'bucketInfo?', 'lifecycleRules?'],
      capability: 'writeBuckets',
      work: ({ bucketName }) => {
        if (store.buckets.some((one) => one.bucketName === bucketName)) {
          throw refusal(400, 'duplicate_bucket_name', 'Bucket name is already in use.')
        }
        return { accountId: store.accountId, ...store.addBucket(String(bucketName)) }
      },
    },
    b2_get_upload_url: {
      fields: ['bucketId'],
      capability: 'writeFiles',
      work: ({ bucketId }, key, base) => {
        store.bucket(bucketId)
        return { bucketId, ...giveUrl(key, 'b2_upload_file', String(bucketId), base) }
      },
    },
    b2_start_large_file: {
      fields: ['bucketId', 'fileName', 'contentType', 'fileInfo?'],
      capability: 'writeFiles',
      work: ({ bucketId, fileName, contentType, fileInfo }) => {
        store.bucket(bucketId)
        const info = (fileInfo ?? {}) as Record<string, string>
        const about = { bucketId: String(bucketId), name: String(fileName), contentType: String(contentType) }
        return store.describe(store.add({ ...about, action: 'start', fileInfo: info }))
      },
    },
    b2_get_upload_part_url: {
      fields: ['fileId'],
      capability: 'writeFiles',
      work: ({ fileId }, key, base) => {
        store.unfinished(fileId)
        return { fileId, ...giveUrl(key, 'b2_upload_part', String(fileId), base) }
      },
    },
    b2_finish_large_file: {
      fields: ['fileId', 'partSha1Array'],
      capability: 'writeFiles',
      work: ({ fileId, partSha1Array }) => {
        const file = store.unfinished(fileId)
        store.finish(file, partSha1Array, minPartBytes)
        return store.describe(file)
      },
    },
    b2_cancel_large_file: {
      fields: ['fileId'],
      capability: 'writeFiles',
      work: ({ fileId }) => {
        const { bucketId, name: fileName } = store.unfinished(fileId)
        store.files.delete(String(fileId))
        return { accountId: store.accountId, bucketId, fileId, fileName }
      },
    },
    b2_list_parts: {
      fields: ['fileId', 'startPartNumber?', 'maxPartCount?'],
      capability: 'writeFiles',
      work: ({ fileId, startPartNumber, maxPartCount }) => {
        const { parts } = store.unfinished(fileId)
        const from = [...parts].filter(([number]) => number >= Number(startPartNumber ?? 1)).sort(([a], [b]) => a - b)
        const count = Number(maxPartCount ?? 100)
        const page = from.slice(0, count).map(([partNumber, { size, sha1 }]) => ({
          fileId,
          partNumber,
          contentLength: size,
          contentSha1: sha1,
        }))
        return { parts: page, nextPartNumber: from[count]?.[0] ?? null }
      },
    },
    b2_list_unfinished_large_files: {
      fields: ['bucketId', 'namePrefix?', 'startFileId?', 'maxFileCount?'],
      capability: 'listFiles',
      work: (body) => listUnfinished(store, body),
    },
    b2_list_file_names: {
      fields: ['bucketId', 'startFileName?', 'maxFileCount?', 'prefix?', 'delimiter?'],
      capability: 'listFiles',
      work: (body) => listFileNames(store, body),
    },
    b2_list_file_versions: {
      fields: ['bucketId', 'startFileName?', 'startFileId?', 'maxFileCount?', 'prefix?', 'delimiter?'],
      capability: 'listFiles',
      work: (body) => listFileVersions(store, body),
    },
    b2_get_file_info: {
      fields: ['fileId'],
      capability: 'readFiles',
      work: ({ fileId }) => store.describe(store.file(fileId)),
    },
    b2_hide_file: {
      fields: ['bucketId', 'fileName'],
      capability: 'writeFiles',
      work: ({ bucketId, fileName }) => {
        const name = String(fileName)
        const [top] = store.versions(name, String(bucketId))
        if (!top) throw refusal(400, 'no_such_file', `no such file: ${name}`)
        if (top.action === 'hide') throw refusal(400, 'already_hidden', `file already hidden: ${name}`)
        return store.describe(store.add({ bucketId: String(bucketId), name, action: 'hide' }))
      },
    },
    b2_delete_file_version: {
      fields: ['fileName', 'fileId', 'bypassGovernance?'],
      capability: 'deleteFiles',
      work: ({ fileName, fileId }) => {
        const file = store.files.get(String(fileId))
        if (file === undefined || file.name !== fileName)
          throw refusal(400, 'file_not_present', `file not present: ${fileName} ${fileId}`)
        if (file.isLocked) throw refusal(403, 'access_denied')
        store.files.delete(file.fileId)
        return { fileId, fileName }
      },
    },
  }
}
