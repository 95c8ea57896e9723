import { globSync } from 'node:fs'
import { basename } from 'node:path'
import { defineConfig } from 'rolldown'

// The command in few files, as loading its 230 modules one by one takes longer than any of its short work. The package's
// exports stay modules (tsc). Dependencies are left to npm.
const threads = globSync('{lib,transforms,adapters}/**/*-worker.ts')

export default defineConfig({
  input: {
    millrace: 'lib/cli/bin.ts',
    // Beside the others, where `beginThread` looks for them.
    ...Object.fromEntries(threads.map((file) => [basename(file, '.ts'), file])),
  },
  platform: 'node',
  external: /^[^./]/,
  output: { dir: 'dist/bin', format: 'esm', cleanDir: true },
})
