import type { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'

/**
 * Waits for what a program that has ended wrote last, which may still be in its pipes: until they have ended, as something
 * that it left running may hold them open `ms` at most.
 * @param pipes its outputs, being read by others.
 */
export async function lastWords(pipes: readonly Readable[], ms: number): Promise<void> {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), ms)
  await Promise.allSettled(pipes.map((pipe) => finished(pipe, { signal: late.signal })))
  clearTimeout(timer)
}
