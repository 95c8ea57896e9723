// What do a backup into S3 and a restore from it take, beside the programs that one would take otherwise? All in the same
// run, in turn, into a bucket each of a real S3 server. MILLRACE_BENCH_BYTES sets the size of the world (2 GiB),
// MILLRACE_BENCH_RUNS the rounds (3), MILLRACE_S3_ENDPOINT another server.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectsCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import { install, type Peer, s3Peers } from './peers/peers.ts'
import { middleFile, race, type Store } from './peers/race.ts'
import { reportRace } from './peers/report.ts'
import { startS3Tidily, tidily } from './peers/tidy.ts'
import type { Limits } from './peers/verdict.ts'
import { build } from './support.ts'
import { writeWorld } from './world.ts'

const RUNS = Number(process.env.MILLRACE_BENCH_RUNS ?? 3)
const BYTES = Number(process.env.MILLRACE_BENCH_BYTES ?? 2 * 2 ** 30)
const LIMITS: Limits = {
  backup: { restic: 0.7, 'tar | zstd | rclone crypt': 0.85, 'tar | zstd | age | aws s3 cp': 0.85 },
  // Of the fastest of them.
  restore: 0.7,
}
/** The server frees what was deleted some seconds later, and its store is memory too. */
const SERVER_FREES_MS = 6000

const peers = s3Peers(BYTES)
install([...peers.flatMap(({ needs }) => needs), 'diff', 'cmp'])
build()
await tidily(async (folder, later) => {
  later(startS3Tidily())
  const endpoint = process.env.MILLRACE_S3_ENDPOINT as string
  const region = process.env.AWS_REGION ?? 'us-east-1'
  const client = new S3Client({ endpoint, region, forcePathStyle: true })
  try {
    const store = bucketsOf(client, endpoint)
    const world = join(folder, 'world')
    const written = writeWorld(world, { bytes: BYTES })
    const laps = await race(peers, { world, file: middleFile(world, 'region'), folder, rounds: RUNS, store })
    for (const peer of peers) await client.send(new DeleteBucketCommand({ Bucket: bucketOf(peer) }))
    reportRace({
      name: 's3-peers',
      where: 'into S3',
      peers,
      laps,
      limits: LIMITS,
      written,
      rounds: RUNS,
      caveats: [
        'The bar of a restore is of the fastest of the others.',
        'S3 is Ceph radosgw on the same machine, over http, its store in memory. It takes its share of the same cores: wall time has it, CPU has not. Over http each program hashes what it sends.',
        'millrace and rclone are told that the store is Ceph (`profile=ceph`, `provider = Ceph`). One that is not known to honour conditional writes costs a backup of millrace 2 s more, which its lease waits.',
        'Requests cost no way here. Over a real line, how many a program has in flight counts for more.',
      ],
    })
  } finally {
    client.destroy()
  }
})

function bucketOf(peer: Peer): string {
  return `millrace-bench-${(peer.name.split(' | ').at(-1) as string).split(' ')[0]}`
}

/** A bucket for each peer. */
function bucketsOf(client: S3Client, endpoint: string): Store {
  const pages = (peer: Peer) => paginateListObjectsV2({ client }, { Bucket: bucketOf(peer) })
  return {
    env: (peer) => ({ ENDPOINT: endpoint, BUCKET: bucketOf(peer) }),
    async empty(peer) {
      const Bucket = bucketOf(peer)
      await client.send(new CreateBucketCommand({ Bucket })).catch((error) => {
        if (error.name !== 'BucketAlreadyOwnedByYou') throw error
      })
      let deleted = 0
      for await (const { Contents = [] } of pages(peer)) {
        const Objects = Contents.map(({ Key }) => ({ Key }))
        if (Objects.length > 0) await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
        deleted += Objects.length
      }
      if (deleted > 0) await sleep(SERVER_FREES_MS)
    },
    async storedBytes(peer) {
      let bytes = 0
      for await (const { Contents = [] } of pages(peer)) {
        for (const { Size = 0 } of Contents) bytes += Size
      }
      return bytes
    },
  }
}
