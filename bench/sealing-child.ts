// Seals a stream of one MiB again and again, for sealing.bench.ts: `DIST VARIANT BYTES PEERS`.
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { type Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const MiB = 2 ** 20
const [dist = '', variant = '', bytesText = '', peers = ''] = process.argv.slice(2)
const bytes = Number(bytesText)
const block = randomBytes(MiB)
let bytesOut = 0

function* blocks(): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= block.length) yield left < block.length ? block.subarray(0, left) : block
}

const source = () => {
  const next = blocks()
  return new Readable({
    highWaterMark: MiB,
    read() {
      this.push(next.next().value ?? null)
    },
  })
}

const nowhere = (onConsumed: (chunk: Buffer) => void = () => {}) =>
  new Writable({
    write(chunk: Buffer, _encoding, callback) {
      bytesOut += chunk.length
      onConsumed(chunk)
      callback()
    },
  })

const load = <T>(path: string): Promise<T> => import(join(dist, path))

/** The product's streams, put together and their memory given back as lib/create.ts does it. */
async function own(
  make: (transforms: typeof import('../transforms/index.ts')) => Duplex[],
  free: boolean,
): Promise<() => Promise<void>> {
  const transforms = await load<typeof import('../transforms/index.ts')>('transforms/index.js')
  const { freeChunk, run } = await load<typeof import('../lib/pipe.ts')>('lib/pipe.js')
  return () => run(source(), make(transforms), nowhere(free ? freeChunk : undefined))
}

/** Of what is used of it here; the package is not the project's. */
interface EncryptionSdk {
  buildEncrypt(): { encryptStream(keyring: unknown, options: { suiteId: number; frameLength?: number }): Duplex }
  RawAesKeyringNode: new (options: object) => unknown
  RawAesWrappingSuiteIdentifier: Record<string, number>
  AlgorithmSuiteIdentifier: Record<string, number>
}

/** The default commitment policy, whose suites derive and commit to a key; of them the one that does not sign. */
async function aws(frameLength?: number): Promise<() => Promise<void>> {
  const sdk: EncryptionSdk = createRequire(join(peers, 'package.json'))('@aws-crypto/client-node')
  const keyring = new sdk.RawAesKeyringNode({
    keyName: 'bench',
    keyNamespace: 'bench',
    unencryptedMasterKey: new Uint8Array(randomBytes(32)),
    wrappingSuite: sdk.RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
  })
  const suiteId = sdk.AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY as number
  return () => {
    const sealing = sdk
      .buildEncrypt()
      .encryptStream(keyring, { suiteId, ...(frameLength === undefined ? {} : { frameLength }) })
    return pipeline(source(), sealing, nowhere())
  }
}

interface Age {
  generateX25519Identity(): Promise<string>
  identityToRecipient(identity: string): Promise<string>
  Encrypter: new () => {
    addRecipient(recipient: string): void
    encrypt(file: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>>
  }
}

async function age(): Promise<() => Promise<void>> {
  const { Encrypter, generateX25519Identity, identityToRecipient }: Age = await import(
    join(peers, 'node_modules/age-encryption/dist/index.js')
  )
  const encrypter = new Encrypter()
  encrypter.addRecipient(await identityToRecipient(await generateX25519Identity()))
  return async () => {
    const next = blocks()
    const plain = new ReadableStream<Uint8Array>({
      pull(controller) {
        const { value, done } = next.next()
        if (done) controller.close()
        else controller.enqueue(value)
      },
    })
    const sealed = await encrypter.encrypt(plain)
    await sealed.pipeTo(
      new WritableStream<Uint8Array>({
        write(chunk) {
          bytesOut += chunk.length
        },
      }),
    )
  }
}

const key = randomBytes(32)
const VARIANTS: Record<string, () => Promise<() => Promise<void>>> = {
  millrace: () => own(({ createEncrypt }) => [createEncrypt({ key })], true),
  kept: () => own(({ createEncrypt }) => [createEncrypt({ key })], false),
  aws: () => aws(MiB),
  'aws-default': () => aws(),
  age,
  sha256: () => own(({ createHashTee }) => [createHashTee()], false),
  'sealed-and-hashed': () => own(({ createEncrypt, createHashTee }) => [createEncrypt({ key }), createHashTee()], true),
  'on-a-thread': async () => {
    const { createSealThread } = await load<typeof import('../transforms/seal-thread.ts')>('transforms/seal-thread.js')
    return own(() => [createSealThread({ key })], true)
  },
}
const prepare = VARIANTS[variant]
if (!prepare) throw new Error(`No variant is called ${variant}.`)
const work = await prepare()
const before = process.cpuUsage()
const begun = performance.now()
await work()
const seconds = (performance.now() - begun) / 1000
const { user, system } = process.cpuUsage(before)
if (bytesOut < bytes) throw new Error(`Of ${bytes} bytes only ${bytesOut} came out.`)
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, bytesIn: bytes, bytesOut }))
