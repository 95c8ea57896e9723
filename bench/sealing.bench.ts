// What does sealing cost, against the AWS Encryption SDK and age-encryption, and with SHA-256 behind it? The bars: 0.6 of
// the SDK's time, 0.15 of age-encryption's, and 1.3 of SHA-256's alone for both together.
// MILLRACE_BENCH_BYTES sets how much is sealed (2 GiB), MILLRACE_BENCH_PEERS where the other packages are installed.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatBytes } from '../lib/cli/format.ts'
import { barChart } from './chart.ts'
import { Child, medianOf, RUNS, runsText, type Work, withRuns } from './child.ts'
import { build, publish, withFolder } from './support.ts'

const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const PEERS = process.env.MILLRACE_BENCH_PEERS ?? join(tmpdir(), 'millrace-bench-peers')
/** They are compared with, and not used: so they are no dependencies. */
const PACKAGES = { '@aws-crypto/client-node': '5.0.2', 'age-encryption': '0.3.1' }
const VARIANTS = {
  millrace: 'millrace, frames of 1 MiB',
  kept: 'millrace, its output left to the collector',
  aws: 'AWS Encryption SDK, frames of 1 MiB',
  'aws-default': 'AWS Encryption SDK, 4 KiB frames (default)',
  age: 'age-encryption',
  sha256: 'SHA-256 alone',
  'sealed-and-hashed': 'millrace and SHA-256',
  'on-a-thread': 'millrace and SHA-256, on a thread',
}
type Variant = keyof typeof VARIANTS
const RATIOS: { of: Variant; to: Variant; bar?: number }[] = [
  { of: 'millrace', to: 'aws', bar: 0.6 },
  { of: 'kept', to: 'aws' },
  { of: 'millrace', to: 'aws-default' },
  { of: 'millrace', to: 'age', bar: 0.15 },
  { of: 'sealed-and-hashed', to: 'sha256', bar: 1.3 },
  { of: 'on-a-thread', to: 'sha256' },
]

build()
installPeers()
await withFolder(bench)

/** Installs what is missing, of exactly these versions. */
function installPeers(): void {
  const isThere = ([name, version]: [string, string]) => {
    const file = join(PEERS, 'node_modules', name, 'package.json')
    return existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === version
  }
  mkdirSync(PEERS, { recursive: true })
  // So that npm takes this folder for a project, and not one around it.
  writeFileSync(join(PEERS, 'package.json'), '{ "private": true }\n')
  const packages = Object.entries(PACKAGES)
  if (packages.every(isThere)) return
  const wanted = packages.map(([name, version]) => `${name}@${version}`)
  const args = ['install', '--no-save', '--no-audit', '--no-fund', '--silent', '--prefix', PEERS, ...wanted]
  execFileSync('npm', args, { cwd: PEERS, stdio: 'inherit' })
}

async function bench(folder: string): Promise<void> {
  const child = new Child('sealing-child', folder)
  const names = Object.keys(VARIANTS) as Variant[]
  const runs = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Variant, Work[]>
  for (let run = 0; run < RUNS; run += 1) {
    for (const name of names) runs[name].push(await child.run([name, String(BYTES), PEERS]))
  }
  const seconds = (name: Variant) => medianOf(runs[name], 'seconds')
  const ratios = RATIOS.map(({ of, to, bar }) => ({ of, to, bar, ratio: seconds(of) / seconds(to) }))
  const said = ratios.map(
    ({ of, to, bar, ratio }) =>
      `${VARIANTS[of]} / ${VARIANTS[to]}: ${ratio.toFixed(2)}${bar === undefined ? '' : ` (bar ${bar})`}`,
  )
  const versions = Object.entries(PACKAGES)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')
  const question = `What it takes to seal ${formatBytes(BYTES)} that do not compress; ${runsText(RUNS)}, in turn.`
  const bars = (some: readonly Variant[], target: (name: Variant) => number | undefined) =>
    some.map((name) => ({
      label: VARIANTS[name],
      value: seconds(name),
      runs: runs[name].map((one) => one.seconds),
      bar: target(name),
    }))
  publish(
    'sealing',
    `${question} ${said.join('; ')}.`,
    ['what', 'time s', 'MiB/s', 'CPU s', 'peak RSS'],
    names.map((name) => [
      VARIANTS[name],
      withRuns(runs[name].map((one) => one.seconds)),
      (BYTES / 2 ** 20 / seconds(name)).toFixed(0),
      medianOf(runs[name], 'cpuSeconds').toFixed(2),
      formatBytes(medianOf(runs[name] as unknown as { peakBytes: number }[], 'peakBytes')),
    ]),
    { runs, ratios, packages: PACKAGES },
    [
      `${versions}; each in a process of its own, whose start is not counted. One MiB of random bytes again and again, into nothing.`,
      'AWS Encryption SDK: a raw AES keyring, its default commitment policy (keys derived by HKDF-SHA-512, with commitment), no signature, AES-256-GCM as millrace; its stream, with frames as large as those of millrace, and with its default.',
      'age-encryption: one X25519 recipient, its stream; ChaCha20-Poly1305 in JavaScript, in frames of 64 KiB.',
      'millrace: what is done with its output gives the memory back, as every store of its own does in a backup; once with the output left to the garbage collector, as the others leave theirs, which have no other way.',
      'millrace and SHA-256: sealed, then hashed, as a small backup does it; on a thread, as one of 64 MiB and more does it. By itself that takes longer, each MiB being copied to the thread and waited for; in a backup, which moves frames of 4 MiB, reading and compressing go on meanwhile (stages, local-peers).',
    ],
    barChart({
      title: `Sealing ${formatBytes(BYTES)}: time`,
      unit: 's',
      groups: [
        {
          label: 'encryption',
          bars: bars(['millrace', 'kept', 'aws', 'aws-default', 'age'], (name) =>
            name === 'millrace' ? Math.min(0.6 * seconds('aws'), 0.15 * seconds('age')) : undefined,
          ),
        },
        {
          label: 'with the checksum',
          bars: bars(['sha256', 'sealed-and-hashed', 'on-a-thread'], (name) =>
            name === 'sha256' ? undefined : 1.3 * seconds('sha256'),
          ),
        },
      ],
      note: `${said.map((one) => `${one}.`).join(' ')} ${versions}.`,
    }),
  )
}
