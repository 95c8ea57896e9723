/**
 * The name that somebody meant who wrote another one.
 * @returns the nearest of `names` by edit distance (one for a letter too many, too few, wrong, or two swapped); undefined
 * where none is near: at most a third of the letters may be wrong, and two of a short name.
 */
export function nearest(written: string, names: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Math.max(2, Math.floor(written.length / 3)) + 1
  for (const name of names) {
    // Longer words cost time that grows with their product, and nobody means so long a name.
    if (written.length > 64) break
    const distance = editDistance(written.toLowerCase(), name.toLowerCase())
    if (distance >= least || distance >= Math.max(written.length, name.length)) continue
    least = distance
    best = name
  }
  return best
}

/** The optimal string alignment distance. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i]
    const above = rows[i - 1] as number[]
    for (let j = 1; j <= b.length; j += 1) {
      const isSame = a[i - 1] === b[j - 1]
      let cost = Math.min(
        (above[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (above[j - 1] as number) + (isSame ? 0 : 1),
      )
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, ((rows[i - 2] as number[])[j - 2] as number) + 1)
      }
      row.push(cost)
    }
    rows.push(row)
  }
  return (rows[a.length] as number[])[b.length] as number
}
