import { createReadStream, createWriteStream, fstatSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'

/**
 * Standard input. Of a disk or partition (and of a folder) Node makes a stream that ends at once: it would be encrypted
 * as nothing at all, and told as done.
 */
export function standardInput(): Readable {
  return isUnknownToNode(0) ? createReadStream('', { fd: 0 }) : process.stdin
}

/** Standard output. Of a disk or partition Node makes a stream that throws away what it is given. */
export function standardOutput(): Writable {
  return isUnknownToNode(1) ? createWriteStream('', { fd: 1, flush: true }) : process.stdout
}

function isUnknownToNode(fd: number): boolean {
  const there = fstatSync(fd)
  return there.isBlockDevice() || there.isDirectory()
}
