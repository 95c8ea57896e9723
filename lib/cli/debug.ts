import { redact } from '../redact.ts'
import { printable } from './format.ts'

const DEPTH = 10

/**
 * An error for whoever looks for its reason: its stack, and those of its causes. Only names, codes, messages and stacks
 * are taken, as requests hang on the errors of some SDKs; secrets are taken out.
 */
export function explainError(error: unknown): string {
  const lines: string[] = []
  explain(error, 'error', 0, lines)
  return redact(lines.join('\n'))
}

function explain(error: unknown, label: string, depth: number, lines: string[]): void {
  if (error === undefined || error === null || depth > DEPTH) return
  const indent = '  '.repeat(depth)
  if (!(error instanceof Error)) {
    lines.push(`${indent}${label}: ${printable(String(error))}`)
    return
  }
  const { code, cause, errors, cleanupError } = error as Error & Record<'code' | 'errors' | 'cleanupError', unknown>
  const named = typeof code === 'string' || typeof code === 'number' ? ` [${code}]` : ''
  const [head = '', ...frames] = (error.stack ?? `${error.name}: ${error.message}`).split('\n')
  // A stack has the message that the error was made with; it may have been changed since.
  const message =
    frames.length > 0 && !head.includes(error.message.split('\n')[0] as string) ? ` (${error.message})` : ''
  lines.push(`${indent}${label}${named}: ${printable(head + message)}`)
  for (const frame of frames) lines.push(`${indent}${printable(frame)}`)
  explain(cause, 'cause', depth + 1, lines)
  if (Array.isArray(errors)) for (const one of errors) explain(one, 'one of several', depth + 1, lines)
  explain(cleanupError, 'and cleaning up failed', depth + 1, lines)
}
