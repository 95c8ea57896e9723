/** Below it, giving memory back costs more than it brings. */
const FREE_BYTES = 16 * 1024
/** The largest that glibc takes as a sign: DEFAULT_MMAP_THRESHOLD_MAX in mallopt(3). */
const SIGN_BYTES = 31 * 1024 * 1024

let isSettled = false

/**
 * Gives a chunk's memory back at once, instead of when the garbage collector comes by: left to it, buffers that are
 * long done with take 60 MiB more, and the collector runs again and again to find them. Only for chunks that this
 * process's own stages or sockets made and nobody else holds; one that shares its memory with others is left alone.
 */
export function freeMemory(chunk: Buffer): void {
  const memory = chunk.buffer as ArrayBuffer
  if (chunk.byteLength !== memory.byteLength || chunk.byteLength < FREE_BYTES) return
  memory.transfer(0)
  if (!isSettled) settleAllocator()
}

/**
 * glibc returns each freed buffer of a MiB to the system, and the next one is a page fault for every 4 KiB of it. It
 * stops once it has seen a larger one come and go (mallopt(3), M_MMAP_THRESHOLD): an address range, never touched.
 */
function settleAllocator(): void {
  isSettled = true
  const sign = Buffer.allocUnsafeSlow(SIGN_BYTES).buffer as ArrayBuffer
  sign.transfer(0)
}
