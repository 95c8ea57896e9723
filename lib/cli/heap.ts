import { setFlagsFromString } from 'node:v8'
import { freeChunk } from '../pipe.ts'

/** The largest that glibc takes as a sign: DEFAULT_MMAP_THRESHOLD_MAX in mallopt(3). */
const THRESHOLD_BYTES = 31 * 2 ** 20

/**
 * Sets this process up for streams of large buffers; for a program's first moment, as both concern all of it.
 *
 * V8 doubles its young generation as objects survive, to 2 x 32 MiB and more on Node 24, though a stream's survive only
 * because they wait for a disk or a server: it is held at what loading the command has made of it, 2 x 8 MiB at most.
 *
 * glibc gives each freed buffer of a MiB back to the system, and the next one is a page fault for every 4 KiB. It stops
 * once it has seen a larger one come and go (mallopt(3), M_MMAP_THRESHOLD), which costs an address range, untouched.
 */
export function settleMemory(): void {
  holdYoungGeneration()
  freeChunk(Buffer.allocUnsafeSlow(THRESHOLD_BYTES))
}

function holdYoungGeneration(): void {
  const isSetByUser = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes('semi-space'))
  if (!isSetByUser) setFlagsFromString('--semi-space-growth-factor=1')
}
