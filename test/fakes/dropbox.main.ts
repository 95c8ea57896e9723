import { FakeDropbox } from './dropbox.ts'

// Lives by itself until SIGTERM, for measuring a client in a process of its own. `--discard` keeps no bytes.
const fake = await FakeDropbox.open({ discard: process.argv.includes('--discard') })
const { clientId, clientSecret, refreshToken } = fake.credentials
process.once('SIGTERM', () => {
  fake.close().then(() => process.exit(0))
})
console.log(`ORIGIN=${fake.origin} CLIENT_ID=${clientId} CLIENT_SECRET=${clientSecret} REFRESH_TOKEN=${refreshToken}`)
