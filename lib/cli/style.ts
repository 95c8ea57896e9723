import { styleText } from 'node:util'

const FORMATS = { good: 'green', bad: 'red', warn: 'yellow', dim: 'dim', strong: 'bold' } as const

/** What a verification's result means. */
export const STATUS_MEANING = { ok: 'good', unverified: 'warn', damaged: 'bad' } as const

/**
 * Colours text by what it means, where the stream that it goes to shows colours: a terminal that is not dumb, unless
 * NO_COLOR says no; or anything, when FORCE_COLOR says so.
 */
export function style(
  meaning: keyof typeof FORMATS,
  text: string,
  stream: NodeJS.WriteStream = process.stdout,
): string {
  return styleText(FORMATS[meaning], text, { stream })
}
