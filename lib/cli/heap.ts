import { setFlagsFromString } from 'node:v8'
import { freeChunk } from '../pipe.ts'

/** The largest that glibc takes as a sign: DEFAULT_MMAP_THRESHOLD_MAX in mallopt(3). */
const THRESHOLD_BYTES = 31 * 2 ** 20

/** By how much more than what lives V8 lets the heap and the buffers beside it grow before it marks all of it again. */
const GROWING_PERCENT = 500

/**
 * Sets this process up for streams of large buffers; for a program's first moment, as both concern all of it.
 *
 * V8 doubles its young generation as objects survive, to 2 x 32 MiB and more on Node 24, though a stream's survive only
 * because they wait for a disk or a server: it is held at what loading the command has made of it, 2 x 8 MiB at most.
 *
 * V8 counts buffers towards the size at which it marks the whole heap, which is four times the heap: some 50 MiB. A stream
 * to a server has more on its way all the time, and would be marked a hundred times for every 2 GiB.
 *
 * glibc gives each freed buffer of a MiB back to the system, and the next one is a page fault for every 4 KiB. It stops
 * once it has seen a larger one come and go (mallopt(3), M_MMAP_THRESHOLD), which costs an address range, untouched.
 */
export function settleMemory(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWING_PERCENT}`)
  holdYoungGeneration()
  freeChunk(Buffer.allocUnsafeSlow(THRESHOLD_BYTES))
}

function holdYoungGeneration(): void {
  const isSetByUser = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes('semi-space'))
  if (!isSetByUser) setFlagsFromString('--semi-space-growth-factor=1')
}
