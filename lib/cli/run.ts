import type { Output } from './output.ts'

/** What every command is given beside its own options. */
export interface Invocation {
  output: Output
  /** Aborts at the first SIGINT or SIGTERM. */
  signal: AbortSignal
}

/** Runs a command's work: with its output, under the signal, its errors reported, its number the exit code. */
export type Runner = (options: { json?: boolean }, run: (invocation: Invocation) => Promise<number>) => Promise<void>
