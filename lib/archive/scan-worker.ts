import fs from 'node:fs'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { selectionOf } from '../exclude.ts'
import { LISTING, type ScanAnswer, type ScanRequest, ScanSums } from './scan.ts'
import { decodeName } from './walk.ts'

// The thread of scanFolder; see scanOnThread.

function scan({ root, rules }: ScanRequest): ScanAnswer {
  const selection = rules && selectionOf(rules)
  const sums = new ScanSums()
  const pending = ['']
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    const listing = fs.opendirSync(join(root, folder), LISTING)
    try {
      for (let entry = listing.readSync(); entry !== null; entry = listing.readSync()) {
        const name = decodeName(entry.name)
        if (name === undefined) continue
        const path = folder === '' ? name : `${folder}/${name}`
        if (selection?.judge(path, entry.isDirectory())) continue
        if (entry.isDirectory()) pending.push(path)
        const stat = fs.lstatSync(join(root, path), { bigint: true, throwIfNoEntry: false })
        if (stat) sums.add(stat, path)
      }
    } finally {
      listing.closeSync()
    }
  }
  return sums.result
}

function scanOrNothing(request: ScanRequest): ScanAnswer {
  try {
    return scan(request)
  } catch {
    // Who asked scans again, and says what it is.
    return undefined
  }
}

parentPort?.postMessage(scanOrNothing(workerData as ScanRequest))
