// What benches that measure in a process of its own share with each other.
import { readFileSync, writeFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import { type Measured, measure, median, ROOT } from './support.ts'

/** How often each thing is measured. */
export const RUNS = Number(process.env.MILLRACE_BENCH_RUNS ?? 3)

/** What a child says of its work, in one line of JSON; its start is not in it. */
export interface Work {
  seconds: number
  /** User and system time of the process, all of its threads. */
  cpuSeconds: number
  /** Bytes that went in, and that came out. */
  bytesIn: number
  bytesOut: number
}

/**
 * Runs `bench/<name>.ts` without its types, so that the 30 MiB of Node's type stripper are in nobody's figures. The
 * child loads the product from dist/, whose folder is its first argument.
 */
export class Child {
  readonly #script: string

  /** @param folder where the stripped script is put. */
  constructor(name: string, folder: string) {
    this.#script = join(folder, `${name}.mjs`)
    writeFileSync(this.#script, stripTypeScriptTypes(readFileSync(join(import.meta.dirname, `${name}.ts`), 'utf8')))
  }

  /** What to put behind `node`. */
  args(...args: readonly string[]): string[] {
    return [this.#script, join(ROOT, 'dist'), ...args]
  }

  /** @throws Error when it fails. */
  async run<T = Work>(
    args: readonly string[],
    { node = process.execPath, env = {} }: { node?: string; env?: NodeJS.ProcessEnv } = {},
  ): Promise<T & Pick<Measured, 'peakBytes' | 'usualBytes'>> {
    const { peakBytes, usualBytes, stdout } = await measure(node, this.args(...args), env)
    return { ...(JSON.parse(stdout) as T), peakBytes, usualBytes }
  }
}

/** The median of one field of several runs. */
export function medianOf<K extends string>(runs: readonly Record<K, number>[], field: K): number {
  return median(runs.map((run) => run[field]))
}

/** `1.23 (1.20 1.23 1.31)`: the median, and the runs themselves where there are several. */
export function withRuns(values: readonly number[], digits = 2): string {
  const middle = median(values).toFixed(digits)
  return values.length > 1 ? `${middle} (${values.map((value) => value.toFixed(digits)).join(' ')})` : middle
}

/** `medians of 3`, for what a bench says of itself. */
export function runsText(runs: number): string {
  return runs === 1 ? 'one run' : `medians of ${runs} runs`
}
