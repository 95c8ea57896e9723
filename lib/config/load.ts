import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, isAbsolute, relative, resolve } from 'node:path'
import { BackupError } from '../errors.ts'
import { checkReferences } from './checks.ts'
import { currentFolder } from './find.ts'
import { type Problem, pathText, validate } from './problems.ts'
import type { Config } from './schema.ts'
import { readYaml, type YamlFile } from './yaml.ts'

/** A file of a thousand servers has a tenth of that. */
const MAX_BYTES = 1024 * 1024

/** A config that was read, and found to be right. */
export interface LoadedConfig {
  /** Its absolute path. */
  file: string
  /** The folder that it is in: relative paths in it are relative to that. */
  folder: string
  config: Config
  /** What works and is hardly meant, a sentence each. */
  warnings: readonly string[]
  /** Those of them that whoever runs anything by it should see. */
  dangers: readonly string[]
}

/**
 * Reads a config file.
 * @throws BackupError USAGE when it is missing, cannot be read, or is wrong: a line for each thing that is wrong, with
 * its line and column. No value of it is repeated, as a secret may stand in the wrong place.
 */
export async function loadConfig(file: string): Promise<LoadedConfig> {
  const { text, mode } = await readText(file)
  const loaded = parseConfig(text, file)
  const { dangers, warnings } = rightsWarnings(loaded, mode)
  return { ...loaded, dangers, warnings: [...loaded.warnings, ...dangers, ...warnings] }
}

/**
 * Reads the text of a config file.
 * @param file its path; the file itself is not read. Relative paths in the text are relative to its folder.
 * @throws BackupError USAGE, as `loadConfig`.
 */
export function parseConfig(text: string, file: string): LoadedConfig {
  const label = labelOf(file)
  if (text.length > MAX_BYTES) throw tooLarge(label)
  const yaml = readYaml(text, label)
  const result = validate(yaml.data)
  const { problems, warnings } = checkReferences(yaml.data)
  const all = 'problems' in result ? [...result.problems, ...problems] : problems
  if (!('config' in result) || all.length > 0) throw new BackupError('USAGE', linesOf(all, yaml, label))
  const path = resolve(file)
  return {
    file: path,
    folder: dirname(path),
    config: result.config,
    warnings: linesOf(warnings, yaml, label),
    dangers: [],
  }
}

function linesOf(problems: readonly Problem[], yaml: YamlFile, label: string): string[] {
  const placed = problems.map((problem) => {
    const { line, column } = yaml.locate(problem.path, problem.at)
    const end = /[.?]$/.test(problem.text) ? '' : '.'
    return { line, column, text: `${label}:${line}:${column} ${pathText(problem.path)} ${problem.text}${end}` }
  })
  placed.sort((a, b) => a.line - b.line || a.column - b.column)
  return [...new Set(placed.map(({ text }) => text))]
}

async function readText(file: string): Promise<{ text: string; mode: number }> {
  const label = labelOf(file)
  try {
    // A fifo in its place would wait for somebody who writes to it.
    const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    try {
      const found = await handle.stat()
      if (!found.isFile()) throw new BackupError('USAGE', `The config ${label} is not a file.`)
      if (found.size > MAX_BYTES) throw tooLarge(label)
      const bytes = await handle.readFile()
      return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), mode: found.mode }
    } finally {
      await handle.close()
    }
  } catch (cause) {
    if (cause instanceof BackupError) throw cause
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') throw new BackupError('USAGE', `The config file ${label} does not exist.`, { cause })
    if (cause instanceof TypeError)
      throw new BackupError('USAGE', `The config file ${label} is not UTF-8 text.`, { cause })
    throw new BackupError('USAGE', `The config file ${label} cannot be read (${message}).`, { cause })
  }
}

function tooLarge(label: string): BackupError {
  return new BackupError('USAGE', `The config file ${label} is larger than 1 MiB: it is another file.`)
}

/** Relative where it is beneath the current folder: that is how it was most likely named. */
function labelOf(file: string): string {
  const current = currentFolder()
  const near = current === undefined ? '' : relative(current, resolve(file))
  return near === '' || near.startsWith('..') || isAbsolute(near) ? resolve(file) : near
}

function rightsWarnings({ file, config }: LoadedConfig, mode: number): { dangers: string[]; warnings: string[] } {
  const label = labelOf(file)
  if (process.platform === 'win32') return { dangers: [], warnings: [] }
  const isWritable = `${label} can be written by others, who can have commands run in your name by it: \`chmod go-w ${label}\`.`
  if (mode & 0o002) return { dangers: [isWritable], warnings: [] }
  // The group may be one of this user alone.
  if (mode & 0o020) return { dangers: [], warnings: [isWritable] }
  // What file: names is held by that file's own rights.
  const isTold = /"(?:\$\{\w+\}|command:.*?)"/s.test(JSON.stringify(config))
  if (!(mode & 0o044) || !isTold) return { dangers: [], warnings: [] }
  return {
    dangers: [],
    warnings: [`${label} can be read by others, and says where secrets are: \`chmod 600 ${label}\`.`],
  }
}
