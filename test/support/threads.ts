import type { TestContext } from 'node:test'
import type { Worker } from 'node:worker_threads'

/** The threads that are begun from now on. */
export function threadsOf(t: TestContext): Worker[] {
  const threads: Worker[] = []
  const note = (thread: Worker) => threads.push(thread)
  process.on('worker', note)
  t.after(() => process.off('worker', note))
  return threads
}
