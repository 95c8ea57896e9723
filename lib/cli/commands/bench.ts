import type { Command } from 'commander'
import { wholeNumber, withServer, withStores } from '../options.ts'
import type { Runner } from '../run.ts'

/** Adds `millrace bench`. */
export function addBench(program: Command, run: Runner): void {
  withServer(withStores(program.command('bench'), '--to', 'measure several'))
    .description(
      'Measure what limits a backup here: disk, CPU or line; how long one takes; and which level and size of parts suit. Nothing is backed up, and no password is used.',
    )
    .argument(
      '[source]',
      'a folder or file, which is only read, or a server of the config (default: the one of the config; without either, synthetic data)',
    )
    .option('--size <size>', 'what is read, and sent to each store, at most (default: 256MiB)')
    .option('--seconds <n>', 'what each measurement takes, about (default: 3)', Number)
    .option('--level <n>', "the zstd level that backups are made with (default: the config's, else 3)", wholeNumber)
    .addHelpText(
      'after',
      `
What is sent to a store are random bytes in scratch objects, which are removed again, also after Ctrl-C.

Examples:
  $ millrace bench /srv/minecraft/world
  $ millrace bench /srv/minecraft/world --to 's3://worlds/mc?region=eu-central-1'
  $ millrace bench --server survival --seconds 10 --size 1GiB
  $ millrace bench world --to file:///mnt/backups --json`,
    )
    .action((source, options) =>
      run(options, async (invocation) => (await import('../work/bench.ts')).benchCommand(source, options, invocation)),
    )
}
