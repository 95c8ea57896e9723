import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** The real S3 servers that the tests bring up on loopback: test/servers has the scripts of each. */
export const SERVERS = ['ceph', 'swift'] as const
export type ServerName = (typeof SERVERS)[number]

/**
 * Starts a server, and waits until it answers.
 * @returns the environment that its script prints: where it is, its keys, and the certificate to trust.
 * @throws when it does not come up; the script's own words are on stderr by then.
 */
export async function startServer(name: ServerName): Promise<Record<string, string>> {
  const line = (await run(`${name}-up.sh`)).trim().split('\n').at(-1) ?? ''
  return Object.fromEntries([...line.matchAll(/(\w+)=(\S+)/g)].map((match) => [match[1], match[2]]))
}

/** Ends what `startServer` started, also in another process. One that does not run is success. */
export async function stopServer(name: ServerName): Promise<void> {
  await run(`${name}-down.sh`)
}

async function run(script: string): Promise<string> {
  const path = fileURLToPath(new URL(`../servers/${script}`, import.meta.url))
  const running = promisify(execFile)('bash', [path])
  running.child.stderr?.pipe(process.stderr)
  const { stdout } = await running
  return stdout
}
