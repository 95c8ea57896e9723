import { stripVTControlCharacters } from 'node:util'

export interface Column<Row> {
  head: string
  cell: (row: Row) => string
  /** Where the whole does not fit. */
  short?: (row: Row) => string
  /** Numbers stand to the right. */
  right?: boolean
  /** Where there is still no room, the column with the highest goes first; one without never goes. */
  drops?: number
}

const GAP = '  '

/**
 * Lines of columns, each as wide as its widest cell.
 * @param width what the lines may take: cells are shortened and columns left out until they fit, as far as they can.
 * undefined: everything is shown.
 */
export function fitTable<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  width: number | undefined,
): string {
  let shown = columns
  for (;;) {
    for (const isShort of [false, true]) {
      const lines = layOut(shown, rows, isShort)
      if (width === undefined || lines.every((line) => widthOf(line) <= width)) return lines.join('\n')
    }
    const least = shown.reduce((most, { drops = 0 }) => Math.max(most, drops), 0)
    if (least === 0) return layOut(shown, rows, true).join('\n')
    shown = shown.filter(({ drops = 0 }) => drops < least)
  }
}

function layOut<Row>(columns: readonly Column<Row>[], rows: readonly Row[], isShort: boolean): string[] {
  const cells = [
    columns.map(({ head }) => head),
    ...rows.map((row) => columns.map(({ cell, short }) => (isShort && short ? short : cell)(row))),
  ]
  const widths = columns.map((_, at) => cells.reduce((most, line) => Math.max(most, widthOf(line[at] as string)), 0))
  return cells.map((line) =>
    line
      .map((text, at) => {
        const padding = ' '.repeat((widths[at] as number) - widthOf(text))
        return columns[at]?.right ? padding + text : text + padding
      })
      .join(GAP)
      .trimEnd(),
  )
}

/** Without what only colours it. */
function widthOf(text: string): number {
  return stripVTControlCharacters(text).length
}

/** The width of the terminal that results go to; undefined where they go to a file or a program. */
export function terminalWidth(): number | undefined {
  return process.stdout.isTTY ? process.stdout.columns : undefined
}
