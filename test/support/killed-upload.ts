import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { StorageConfig } from '../../adapters/open.ts'
import { childPath } from './children.ts'

export interface ChildUpload {
  config: StorageConfig
  key: string
  bytes: number
  /** Of `seededBytes`, which are what is uploaded. */
  seed: number
  /** Between writes of 64 KiB, for an upload that would else be over too soon. */
  pauseMs: number
}

export type ChildMessage = 'ready' | 'ending' | 'committed'

/** An upload in a process of its own. */
export interface KillableUpload {
  /** Lets it begin. */
  go(): void
  /**
   * Resolves once the process has said so: the source has given its last byte, or the commit was reported. Rejects when
   * it ends before.
   */
  said(message: ChildMessage): Promise<void>
  hasSaid(message: ChildMessage): boolean
  /** Kills the process with SIGKILL. Resolves when it is gone. */
  kill(): Promise<void>
}

/**
 * Starts a process that uploads `seededBytes(bytes, seed)` once `go` is called. The store's credentials come to it from
 * the environment. It must be killed in any case.
 */
export async function startUpload(upload: ChildUpload): Promise<KillableUpload> {
  const child = fork(childPath('upload'), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const exit = once(child, 'exit')
  const heard = new Set<ChildMessage>()
  const waiting: { message: ChildMessage; resolve: () => void }[] = []
  child.on('message', (message: ChildMessage) => {
    heard.add(message)
    for (const item of waiting) if (item.message === message) item.resolve()
  })
  const said = async (message: ChildMessage) => {
    if (heard.has(message)) return
    const ended = exit.then(() => {
      throw new Error(`the uploading process ended before it was ${message}`)
    })
    await Promise.race([new Promise<void>((resolve) => waiting.push({ message, resolve })), ended])
  }
  child.send(upload)
  await said('ready')
  return {
    go: () => child.send('go'),
    said,
    hasSaid: (message) => heard.has(message),
    async kill() {
      child.kill('SIGKILL')
      await exit
    },
  }
}
