import { setFlagsFromString } from 'node:v8'

/** By how much more than what lives V8 lets the heap and the buffers beside it grow before it marks all of it again. */
const GROWING_PERCENT = 500

/**
 * Sets this process up for streams of large buffers, as the command does for itself; for a program's first moment, and
 * only where the program has no large heap of its own, as it concerns all of it.
 *
 * V8 doubles its young generation as objects survive, to 2 x 32 MiB and more on Node 24, though a stream's survive only
 * because they wait for a disk or a server: it is held at what loading the program has made of it, 2 x 8 MiB at most, unless its size was set by an option of Node's.
 *
 * V8 counts buffers towards the size at which it marks the whole heap, which is four times the heap: some 50 MiB. A stream
 * to a server has more on its way all the time, and would be marked a hundred times for every 2 GiB.
 */
export function holdHeap(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWING_PERCENT}`)
  holdYoungGeneration()
}

function holdYoungGeneration(): void {
  const isSetByUser = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes('semi-space'))
  if (!isSetByUser) setFlagsFromString('--semi-space-growth-factor=1')
}
