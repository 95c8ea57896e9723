/** Below it, giving memory back costs more than it brings. */
const FREE_BYTES = 16 * 1024

/**
 * Gives a chunk's memory back at once, instead of when the garbage collector comes by: left to it, buffers that are
 * long done with take 60 MiB more, and the collector runs again and again to find them. Only for chunks that this
 * process's own stages or sockets made and nobody else holds; one that shares its memory with others is left alone.
 */
export function freeMemory(chunk: Buffer): void {
  const memory = chunk.buffer as ArrayBuffer
  if (chunk.byteLength === memory.byteLength && chunk.byteLength >= FREE_BYTES) memory.transfer(0)
}
