#!/usr/bin/env node
// Nothing here may need a newer Node than the one that is told to be too old, and so every import waits.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 15)) {
  process.stderr.write(
    `millrace needs Node 22.15 or newer, and this is ${process.versions.node}. Install a newer Node.\n`,
  )
  process.exitCode = 1
} else {
  const { main } = await import('./main.ts')
  const { holdHeap } = await import('../heap.ts')
  holdHeap()
  process.exitCode = await main(process.argv.slice(2))
  // All is done and told. What another's package still waits for, as for a program that was to give credentials, is
  // not worth staying for; what has not been read from a pipe is.
  const leave = () => {
    if (process.stdout.writableLength === 0 && process.stderr.writableLength === 0) process.exit()
  }
  setInterval(leave, 3_000).unref()
}
