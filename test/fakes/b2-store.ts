import { randomBytes } from 'node:crypto'
import { Refusal } from './http.ts'

/** B2's own error body: https://www.backblaze.com/docs/cloud-storage-native-api-error-handling-and-status-codes */
export function refusal(status: number, code: string, message = '', headers: Record<string, string> = {}): Refusal {
  return new Refusal(status, { status, code, message }, headers)
}

export const ALL_CAPABILITIES = [
  'listKeys',
  'writeKeys',
  'deleteKeys',
  'listAllBucketNames',
  'listBuckets',
  'readBuckets',
  'writeBuckets',
  'deleteBuckets',
  'listFiles',
  'readFiles',
  'shareFiles',
  'writeFiles',
  'deleteFiles',
]

export interface FakeKey {
  keyId: string
  applicationKey: string
  capabilities: string[]
  /** Null: all buckets. Several: a key of version 4 of the API. */
  bucketIds: string[] | null
  namePrefix: string | null
}

export interface FakeBucket {
  bucketId: string
  bucketName: string
}

export interface Part {
  size: number
  sha1: string
  /** Undefined where bytes are not kept. */
  bytes: Buffer | undefined
}

export interface FakeFile {
  fileId: string
  bucketId: string
  name: string
  action: 'upload' | 'hide' | 'start'
  contentType: string
  fileInfo: Record<string, string>
  /** Of a large file, of its start. */
  timestamp: number
  size: number
  /** Null of a large file. */
  sha1: string | null
  /** The bytes in order; of an unfinished one, by part numbers. */
  parts: Map<number, Part>
  isLocked: boolean
}

/**
 * What a fake B2 holds. Large files keep the id and the timestamp of their start when they are finished, as their ids
 * tell: so one that was begun before another file came, and finished after it, lies beneath that.
 */
export class B2Store {
  readonly accountId = randomBytes(6).toString('hex')
  readonly buckets: FakeBucket[] = []
  readonly keys = new Map<string, FakeKey>()
  readonly files = new Map<string, FakeFile>()
  /** The names of all ids that were ever given. */
  readonly names = new Map<string, string>()
  #clock = 0
  #count = 0

  addBucket(bucketName: string): FakeBucket {
    const bucket = { bucketId: randomBytes(12).toString('hex'), bucketName }
    this.buckets.push(bucket)
    return bucket
  }

  addKey(limits: Partial<Omit<FakeKey, 'keyId' | 'applicationKey'>> = {}): FakeKey {
    const keyId = `005${this.accountId}${String(this.keys.size).padStart(10, '0')}`
    const applicationKey = `K005${randomBytes(20).toString('base64url')}`
    const key = { keyId, applicationKey, capabilities: ALL_CAPABILITIES, bucketIds: null, namePrefix: null, ...limits }
    this.keys.set(keyId, key)
    return key
  }

  /** @throws Refusal 400 where there is no such bucket. */
  bucket(bucketId: unknown): FakeBucket {
    const bucket = this.buckets.find((one) => one.bucketId === bucketId)
    if (!bucket) throw refusal(400, 'bad_bucket_id', `invalid bucketId: ${bucketId}`)
    return bucket
  }

  /** Adds a file, a hide marker or an unfinished large file, as the newest of its name. */
  add(facts: Pick<FakeFile, 'bucketId' | 'name' | 'action'> & Partial<FakeFile>): FakeFile {
    checkName(facts.name)
    this.#clock = Math.max(Date.now(), this.#clock + 1)
    const number = (++this.#count).toString(16).padStart(15, '0')
    const stamp = String(this.#clock).padStart(14, '0')
    const file: FakeFile = {
      fileId: `4_z${facts.bucketId}_f1${number}_d20261124_m000000_c005_v0501001_t0001_u${stamp}`,
      contentType: 'application/octet-stream',
      fileInfo: {},
      timestamp: this.#clock,
      size: 0,
      sha1: null,
      parts: new Map(),
      isLocked: false,
      ...facts,
    }
    this.files.set(file.fileId, file)
    this.names.set(file.fileId, file.name)
    return file
  }

  /** Files of a bucket by names, in the order of their UTF-8 bytes, the newest of a name first. */
  sorted(bucketId: string, prefix: string): FakeFile[] {
    const found = [...this.files.values()].filter((file) => file.bucketId === bucketId && file.name.startsWith(prefix))
    return found.sort((a, b) => compareNames(a.name, b.name) || b.timestamp - a.timestamp)
  }

  /** Files and hide markers of a name, the newest first; in the first bucket unless another is named. */
  versions(name: string, bucketId = this.buckets[0]?.bucketId ?? ''): FakeFile[] {
    return this.sorted(bucketId, name).filter((file) => file.name === name && file.action !== 'start')
  }

  /** What readers see under a name. */
  live(bucketId: string, name: string): FakeFile | undefined {
    const [top] = this.versions(name, bucketId)
    return top?.action === 'upload' ? top : undefined
  }

  /** @throws Refusal for what is no id of a file, and for a file that is not there. */
  file(fileId: unknown): FakeFile {
    if (typeof fileId !== 'string' || !fileId.startsWith('4_z'))
      throw refusal(400, 'bad_request', `Bad fileId: ${fileId}`)
    const file = this.files.get(fileId)
    if (!file) throw refusal(404, 'not_found', `File with fileId ${fileId} does not exist`)
    return file
  }

  /** @throws Refusal 400 unless it is a large file that was begun and neither finished nor cancelled. */
  unfinished(fileId: unknown): FakeFile {
    const file = this.files.get(String(fileId))
    if (file?.action !== 'start') throw refusal(400, 'bad_request', `No active upload for: ${fileId}`)
    return file
  }

  /** Makes a file of the parts of a large one. */
  finish(file: FakeFile, hashes: unknown, minPartBytes: number): void {
    if (!Array.isArray(hashes)) throw refusal(400, 'bad_request', 'partSha1Array is not an array')
    const count = file.parts.size
    for (let number = 1; number <= Math.max(count, hashes.length); number++) {
      const part = file.parts.get(number)
      if (!part) throw refusal(400, 'missing_part', `Part number ${number} has not been uploaded`)
      if (part.sha1 !== hashes[number - 1]) throw refusal(400, 'part_sha1_mismatch', `Sha1 mismatch of part ${number}`)
      if (number < count && part.size < minPartBytes) {
        throw refusal(400, 'bad_request', `Part number ${number} is smaller than ${minPartBytes} bytes`)
      }
    }
    if (count < 2) throw refusal(400, 'bad_request', 'large files must have at least 2 parts')
    file.action = 'upload'
    file.size = [...file.parts.values()].reduce((sum, part) => sum + part.size, 0)
  }

  /** The facts of a file as the API's calls give them. */
  describe(file: FakeFile): Record<string, unknown> {
    const { fileId, bucketId, name: fileName, action, contentType, fileInfo, timestamp, size, sha1 } = file
    const isUpload = action === 'upload'
    return {
      accountId: this.accountId,
      action,
      bucketId,
      contentLength: isUpload ? size : 0,
      contentMd5: null,
      contentSha1: isUpload ? (sha1 ?? 'none') : null,
      contentType: action === 'hide' ? 'application/x-bz-hide-marker' : contentType,
      fileId,
      fileInfo,
      fileName,
      uploadTimestamp: timestamp,
    }
  }
}

export function compareNames(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** https://www.backblaze.com/docs/cloud-storage-files @throws Refusal 400 */
function checkName(name: string): void {
  const bytes = Buffer.byteLength(name)
  const isBad =
    bytes < 1 || bytes > 1024 || /[\p{Cc}\\]/u.test(name.replace(/[\u{80}-\u{9f}]/gu, '')) || /^\/|\/$|\/\//.test(name)
  const isLong = name.split('/').some((segment) => Buffer.byteLength(segment) > 250)
  if (isBad || isLong) throw refusal(400, 'bad_request', `Bad file name: ${JSON.stringify(name)}`)
}
