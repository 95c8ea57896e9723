import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { StorageConfig } from '../../adapters/open.ts'
import type { CreateOptions, RestoreOptions, RetentionPolicy } from '../../lib/index.ts'
import { childPath } from './children.ts'
import type { Folders } from './fs-moments.ts'
import type { Random } from './random.ts'

/** A moment of a run: in which of its calls or requests, and where in that. */
export interface Moment {
  /** As `object rename` or `object part`: what it is to the service, and what is done. */
  at: string
  /** Which of that name, from 0. */
  nth: number
  /** Before it has any effect, while it is under way, or when it is done and the process has not been told. */
  when: 'before' | 'within' | 'after'
  /** Of what is under way: how far it is, from 0 to 1. */
  share: number
}

export type ServiceWork =
  /** A backup, and the retention after it. */
  | { kind: 'backup'; source: string; options: CreateOptions }
  | { kind: 'prune' }
  | { kind: 'restore'; target: string; options: RestoreOptions }

/** What a process is to do, as a message to it. */
export interface ServiceTask {
  /** The store; credentials come from the environment. */
  config: StorageConfig
  server: string
  /** Of a raw key, hex. */
  key: string
  work: ServiceWork
  policy: RetentionPolicy
  stateDir: string
  /** Whose calls are counted. */
  folders: Folders
  /** When the process kills itself. */
  moment?: Moment | undefined
}

/** What a process says that was not killed: how often each call was made. */
export interface ServiceDone {
  calls: Record<string, number>
}

/** A process at its work. */
export interface Service {
  /** Kills it with SIGKILL, wherever it is. */
  kill(): void
  /** What it said; null when it was killed. Rejects when it failed. */
  ended: Promise<ServiceDone | null>
}

/**
 * Starts a process that does a piece of the service's work.
 * @param cache a folder where compiled sources are kept from one process to the next.
 */
export function startService(task: ServiceTask, cache: string): Service {
  const child = fork(childPath('service'), {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...process.env, NODE_COMPILE_CACHE: cache },
  })
  let said: ServiceDone | undefined
  let complaints = ''
  child.on('message', (message: ServiceDone) => {
    said = message
  })
  child.stderr?.on('data', (chunk) => {
    complaints += chunk
  })
  const ended = async () => {
    const [code, signal] = await once(child, 'exit')
    if (signal === 'SIGKILL') return null
    assert.equal(code, 0, `the service failed: ${complaints}`)
    assert.ok(said, 'the service ended and said nothing')
    return said
  }
  child.send(task)
  return { kill: () => child.kill('SIGKILL'), ended: ended() }
}

/** How often a moment comes in each, where the others count 1. */
const WEIGHTS: Record<string, number> = { object: 4, companion: 2, lease: 2 }

/**
 * A moment of a run that is like one that was measured. However often the calls come, what they are to the service has
 * its weight, and the names of that have equal chances.
 * @param calls how often each was made.
 */
export function pickMoment(random: Random, calls: Record<string, number>): Moment {
  const names = Object.keys(calls).sort()
  const stage = random.weighted(Object.fromEntries(names.map(stageOf).map((name) => [name, WEIGHTS[name] ?? 1])))
  const at = random.pick(names.filter((name) => stageOf(name) === stage))
  const nth = random.int(calls[at] as number)
  return { at, nth, when: random.pick(['before', 'within', 'after']), share: random.next() }
}

/** What a call is to the service: the first word of its name. */
export function stageOf(name: string): string {
  return name.split(' ')[0] as string
}
