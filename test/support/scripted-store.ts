import { createHash } from 'node:crypto'
import { StorageError, type StorageErrorCode } from '../../adapters/errors.ts'
import type {
  FoundObject,
  MultipartPrimitives,
  MultipartRules,
  PartBody,
  PrimitiveRequest,
  TakenUp,
} from '../../adapters/multipart.ts'
import { abortError, type RetryClock } from '../../adapters/retry.ts'

type Step = 'takeUp' | 'putWhole' | 'begin' | 'putPart' | 'commit' | 'abort' | 'find' | 'remove'

export interface Call {
  step: Step
  part?: number
  bytes?: number
  sha256?: string
  last?: boolean
}

/** What happens to one call in place of its work: it may do the work itself, before or after. */
export type Script = (context: { call: Call; signal: AbortSignal; work: () => void }) => Promise<void> | void

export const RULES: MultipartRules = {
  minPartBytes: 10,
  maxPartBytes: 1000,
  alignBytes: 10,
  maxParts: 10_000,
  maxObjectBytes: 1_000_000,
  concurrency: 3,
}

/** A store of one key for `MultipartWritable`, which writes down every call and fails as a test tells it. */
export class ScriptedStore implements MultipartPrimitives<number, string> {
  readonly rules: MultipartRules
  readonly calls: Call[] = []
  object: { bytes: Buffer; owner: 'us' | 'another' } | undefined
  readonly uploads = new Map<number, Map<number, Buffer>>()
  inFlight = 0
  maxInFlight = 0
  /** How many calls have come to their script: from then on it is the script's doing when they settle. */
  entered = 0
  #scripts: { step: Step; script: Script; part: number | undefined }[] = []
  #ids = 0

  constructor(rules: Partial<MultipartRules> = {}) {
    this.rules = { ...RULES, ...rules }
  }

  /** Replaces the next call of a step, or of one part of it. */
  next(step: Step, script: Script, part?: number): void {
    this.#scripts.push({ step, script, part })
  }

  count(step: Step): number {
    return this.calls.filter((call) => call.step === step).length
  }

  putWhole(body: Buffer, request: PrimitiveRequest): Promise<void> {
    return this.#run({ step: 'putWhole', bytes: body.length }, request, () => {
      this.object = { bytes: Buffer.from(body), owner: 'us' }
    })
  }

  async begin(request: PrimitiveRequest): Promise<number> {
    const id = ++this.#ids
    await this.#run({ step: 'begin' }, request, () => this.uploads.set(id, new Map()))
    return id
  }

  async putPart(upload: number, { number, body, last }: PartBody, request: PrimitiveRequest): Promise<string> {
    const digest = sha256(body)
    const call: Call = { step: 'putPart', part: number, bytes: body.length, sha256: digest, last }
    await this.#run(call, request, () => this.uploads.get(upload)?.set(number, Buffer.from(body)))
    return `${number}:${digest}`
  }

  commit(upload: number, receipts: string[], request: PrimitiveRequest): Promise<void> {
    return this.#run({ step: 'commit', bytes: receipts.length }, request, () => {
      const parts = this.uploads.get(upload)
      if (!parts) throw failure('NOT_FOUND', 'commit', false)
      const ordered = [...parts].sort(([a], [b]) => a - b).map(([, bytes]) => bytes)
      this.object = { bytes: Buffer.concat(ordered), owner: 'us' }
      this.uploads.delete(upload)
    })
  }

  abort(upload: number, request: PrimitiveRequest): Promise<void> {
    return this.#run({ step: 'abort' }, request, () => this.uploads.delete(upload))
  }

  async find(request: PrimitiveRequest): Promise<FoundObject | undefined> {
    await this.#run({ step: 'find' }, request, () => {})
    return this.object && { size: this.object.bytes.length, ours: this.object.owner === 'us' }
  }

  remove(request: PrimitiveRequest): Promise<void> {
    return this.#run({ step: 'remove' }, request, () => {
      this.object = undefined
    })
  }

  nameOf(upload: number): string {
    return `upload ${upload}`
  }

  checksumOf(receipt: string): string {
    return receipt.slice(receipt.indexOf(':') + 1)
  }

  async takeUp(name: string, request: PrimitiveRequest): Promise<TakenUp<number, string> | undefined> {
    await this.#run({ step: 'takeUp' }, request, () => {})
    const upload = Number(name.slice('upload '.length))
    const parts = this.uploads.get(upload)
    if (!parts) return undefined
    const held = new Map([...parts].map(([number, bytes]) => [number, sha256(bytes)]))
    return {
      upload,
      receiptOf: ({ number, body }) => (held.get(number) === sha256(body) ? `${number}:${sha256(body)}` : undefined),
    }
  }

  async #run(call: Call, { signal }: PrimitiveRequest, work: () => void): Promise<void> {
    this.calls.push(call)
    const index = this.#scripts.findIndex((item) => item.step === call.step && (item.part ?? call.part) === call.part)
    const [found] = index < 0 ? [] : this.#scripts.splice(index, 1)
    if (call.step === 'putPart') this.maxInFlight = Math.max(this.maxInFlight, ++this.inFlight)
    try {
      await new Promise((resolve) => setImmediate(resolve))
      if (signal.aborted) throw abortError(signal)
      if (found) {
        this.entered++
        await found.script({ call, signal, work })
      } else work()
    } finally {
      if (call.step === 'putPart') this.inFlight--
    }
  }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export function failure(code: StorageErrorCode, operation: string, retryable?: boolean, retryAfterMs?: number) {
  const message = `${operation} failed as the test told it to.`
  return new StorageError(message, {
    code,
    adapter: 'scripted',
    operation,
    ...(retryable === undefined ? {} : { retryable }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  })
}

/** Never answers; lets go when it is told to. */
export const untilAborted: Script = ({ signal }) =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(abortError(signal))
    signal.addEventListener('abort', () => reject(abortError(signal)))
  })

/** A clock on which waiting takes no time, and that writes down how long it was to be. */
export function fakeClock(random = 0.5): RetryClock & { waits: number[] } {
  let now = 0
  const waits: number[] = []
  return {
    waits,
    now: () => now,
    random: () => random,
    async sleep(ms, signal) {
      if (signal?.aborted) throw abortError(signal)
      waits.push(ms)
      now += ms
    },
  }
}
