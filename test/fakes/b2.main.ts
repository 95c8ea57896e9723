// A fake B2 as a process of its own: `node test/fakes/b2.main.ts [--discard] [--answer-ms=N]` prints one line and lives
// until SIGTERM.
import { FakeB2 } from './b2.ts'

const answerMs = Number(process.argv.find((arg) => arg.startsWith('--answer-ms='))?.split('=')[1] ?? 0)
const fake = await new FakeB2({ discard: process.argv.includes('--discard'), answerMs }).start()
const { bucketName } = fake.store.addBucket('worlds')
const { keyId, applicationKey } = fake.store.addKey()
console.log(`ORIGIN=${fake.origin} BUCKET=${bucketName} KEY_ID=${keyId} APPLICATION_KEY=${applicationKey}`)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => fake.close().then(() => process.exit()))
