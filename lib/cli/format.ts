import { stripVTControlCharacters } from 'node:util'

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1536` as `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  // By what would be written: 1023.7 KiB would be 1024 KiB, and 99.98 one of 100.0.
  while (Math.round(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toFixed(digits)} ${UNITS[unit]}`
}

export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`
}

/** `93_000` ms as `1m 33s`. */
export function formatDuration(ms: number): string {
  if (Math.round(ms) < 1000) return `${Math.round(ms)} ms`
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${(ms / 1000).toFixed(1)} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`
  return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`
}

/** `2561` `file` as `2,561 files`. */
export function formatCount(count: number, noun: string, plural = `${noun}s`): string {
  // Not by Intl, whose first use takes 10 ms.
  return `${String(count).replace(/\B(?=(\d{3})+$)/g, ',')} ${count === 1 ? noun : plural}`
}

/** How many times smaller: `1.54`. */
export function formatRatio(bytes: number, storedBytes: number): string {
  return storedBytes > 0 ? (bytes / storedBytes).toFixed(2) : '-'
}

/** How long ago, in one unit: `3 hours`. */
export function formatAge(ms: number): string {
  const steps: [number, string][] = [
    [86_400_000, 'day'],
    [3_600_000, 'hour'],
    [60_000, 'minute'],
    [1000, 'second'],
  ]
  for (const [size, noun] of steps) if (ms >= size) return formatCount(Math.floor(ms / size), noun)
  return ms < 0 ? 'in the future' : 'now'
}

/** The same where there is no room: `3h`. */
export function shortAge(ms: number): string {
  return ms < 0 ? 'future' : formatAge(ms).replace(/^([\d,]+) (.).*$/, '$1$2')
}

/** Lines of columns, each as wide as its widest cell. Numbers (`right`) stand to the right. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[] = [],
): string {
  const all = [header, ...rows]
  const width = (text = '') => stripVTControlCharacters(text).length
  const widths = header.map((_, column) => all.reduce((most, row) => Math.max(most, width(row[column])), 0))
  return all
    .map((row) =>
      row
        .map((cell, column) => {
          const padding = ' '.repeat((widths[column] as number) - width(cell))
          return right.includes(column) ? padding + cell : cell + padding
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Text from a store or a disk, without the characters that move a terminal's cursor. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (char) => {
    const code = char.codePointAt(0) as number
    return char === '\n' ? '\\n' : `\\u${code.toString(16).padStart(4, '0')}`
  })
}
