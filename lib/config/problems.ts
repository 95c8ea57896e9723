import type { z } from 'zod'
import { nearest } from '../nearest.ts'
import { configSchema } from './schema.ts'
import type { Path } from './yaml.ts'

/** Something wrong in a file: where, and what is said of what is there. */
export interface Problem {
  path: Path
  /** Goes on from the path, without a full stop: `is missing`. */
  text: string
  /** Whether the key is wrong, or its value. */
  at: 'key' | 'value'
}

type RawIssue = Parameters<z.core.$ZodErrorMap>[0]

/** Holds what was read to the schema. @returns the settings, or all that is wrong with them. */
export function validate(data: unknown): { config: z.output<typeof configSchema> } | { problems: Problem[] } {
  const result = configSchema.safeParse(data, { error: wordsOf })
  if (result.success) return { config: result.data }
  return { problems: result.error.issues.flatMap((issue) => problemsOf(issue as z.core.$ZodIssue, data, [])) }
}

const TYPES: Record<string, string> = {
  string: 'must be text',
  number: 'must be a number',
  int: 'must be a whole number',
  boolean: 'must be true or false',
  array: 'must be a list',
  object: 'must be a mapping: names with values beneath it',
  record: 'must be a mapping: names with values beneath it',
}

const FORMATS: Record<string, string> = { url: 'must be a URL, such as https://s3.example.org' }

/** What is said where the schema itself says nothing. Never repeats a value: it may be a secret in the wrong place. */
function wordsOf(issue: RawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined) return 'is missing'
      if (issue.input === null) return 'is empty: give it a value, or take it out'
      return typesWords(issue.expected, issue.input)
    case 'unrecognized_keys':
      // Read by problemsOf: the schema that knows its keys is told here only.
      return JSON.stringify(Object.keys((issue.inst as z.core.$ZodObject)._zod.def.shape))
    case 'invalid_value':
      return choiceWords(issue.input, issue.values.map(String))
    case 'invalid_union':
      return unionWords(issue)
    case 'too_small':
      return issue.origin === 'number' ? `must be ${issue.minimum} or more` : 'must not be empty'
    case 'too_big':
      if (issue.origin === 'string') return `is too long: at most ${issue.maximum} characters`
      return `must be ${issue.maximum} or less`
    case 'invalid_format': {
      const { format, prefix } = issue as { format: string; prefix?: string }
      if (format === 'starts_with') return `must begin with ${prefix}`
      return FORMATS[format] ?? 'is not written as it has to be'
    }
    case 'invalid_key':
      return issue.issues[0]?.message ?? 'is not a name'
    default:
      return 'cannot be used'
  }
}

function typesWords(expected: string, input: unknown): string {
  const words = TYPES[expected] ?? 'is of the wrong kind'
  const isBare = typeof input === 'number' || typeof input === 'boolean'
  return expected === 'string' && isBare ? `${words}: put it in quotes` : words
}

function choiceWords(input: unknown, choices: readonly string[]): string {
  const list = choices.length === 1 ? `It can only be ${choices[0]}` : `It is one of ${choices.join(', ')}`
  if (input === undefined) return `is missing. ${list}`
  if (input === null) return `is empty. ${list}`
  const meant = typeof input === 'string' ? nearest(input, choices) : undefined
  return meant === undefined ? `is not known. ${list}` : `is not known. Did you mean ${meant}? ${list}`
}

function unionWords(issue: RawIssue & { code: 'invalid_union' }): string {
  const { discriminator, options, input, inst } = issue as {
    discriminator?: string
    options?: unknown[]
    input: unknown
    inst?: z.core.$ZodUnion
  }
  if (discriminator !== undefined) {
    return choiceWords((input as Record<string, unknown> | undefined)?.[discriminator], (options ?? []).map(String))
  }
  if (input === undefined) return 'is missing'
  const kinds = (inst?._zod.def.options ?? []).map((option) => {
    const { type, values } = option._zod.def as { type: string; values?: unknown[] }
    if (type === 'literal') return String(values?.[0])
    return type === 'object' ? 'a mapping' : 'text'
  })
  return `must be ${kinds.join(' or ')}`
}

function problemsOf(issue: z.core.$ZodIssue, data: unknown, before: Path): Problem[] {
  const path = [...before, ...(issue.path as (string | number)[])]
  if (issue.code === 'unrecognized_keys') {
    const known = JSON.parse(issue.message) as string[]
    return issue.keys.map((key) => ({
      path: [...path, key],
      at: 'key',
      text: unknownWords(key, known, valueAt(data, path)),
    }))
  }
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const value = valueAt(data, path)
    // Of several shapes, the one is meant that what is there could be at all.
    const branch = issue.errors.find((errors) => !errors.some((one) => one.path.length === 0 && isOfType(one)))
    if (typeof value === 'object' && value !== null && branch) {
      return branch.flatMap((one) => problemsOf(one, data, path))
    }
  }
  return [{ path, text: issue.message, at: issue.code === 'invalid_key' ? 'key' : 'value' }]
}

function isOfType({ code }: z.core.$ZodIssue): boolean {
  return code === 'invalid_type' || code === 'invalid_value'
}

function unknownWords(key: string, known: readonly string[], beside: unknown): string {
  const meant = nearest(key, known)
  if (meant === undefined) return `is not known. Known here are ${known.filter((one) => one !== '$schema').join(', ')}`
  const isThere = typeof beside === 'object' && beside !== null && Object.hasOwn(beside, meant)
  return isThere ? `is not known, and ${meant} is there as well` : `is not known. Did you mean ${meant}?`
}

/** What is at a path; undefined where it leads nowhere. */
export function valueAt(data: unknown, path: Path): unknown {
  let value = data
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined
    value = (value as Record<string | number, unknown>)[step]
  }
  return value
}

/** `servers.survival.exclude[2]`, with quotes where a name is no plain one. */
export function pathText(path: Path): string {
  return path
    .map((step, at) => {
      if (typeof step === 'number') return `[${step}]`
      const shown = /^[\w$.-]{1,80}$/.test(step)
        ? step
        : JSON.stringify(step.length > 80 ? `${step.slice(0, 80)}…` : step)
      return at === 0 ? shown : `.${shown}`
    })
    .join('')
}
