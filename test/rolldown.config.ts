import { globSync } from 'node:fs'
import { basename } from 'node:path'
import { defineConfig } from 'rolldown'
import command from '../rolldown.config.ts'

// What tests start as processes of their own, in few files, as the command: from their sources they take twice the time.
const children = globSync('test/support/*-child.ts')
const { millrace: _, ...threads } = command.input as Record<string, string>

export default defineConfig({
  ...command,
  input: { ...threads, ...Object.fromEntries(children.map((file) => [basename(file, '.ts'), file])) },
})
