// Runs the fake as a process of its own: `node test/fakes/drive.main.ts [--discard]`. It prints one line with what a
// client needs, and lives until SIGTERM.
import { startDriveFake } from './drive.ts'

const fake = await startDriveFake({ discard: process.argv.includes('--discard') })
const { clientId, clientSecret, refreshToken } = fake.state
console.log(`ORIGIN=${fake.origin} CLIENT_ID=${clientId} CLIENT_SECRET=${clientSecret} REFRESH_TOKEN=${refreshToken}`)
process.once('SIGTERM', () => fake.close())
