/** A value at a time. */
export interface Sample {
  /** ms since 1970. */
  at: number
  value: number
}

/** One or several samples that are near each other in time. */
export interface Point {
  /** Of the first and the last of them, ms since 1970. */
  at: number
  to: number
  count: number
  low: number
  middle: number
  high: number
}

/**
 * Brings samples down to a number of points: all as they are where they are few, else one for each equal part of the
 * time that has any, with the least, the median and the greatest of its values.
 * @param samples oldest first.
 * @param most how many points at most.
 */
export function pointsOf(samples: readonly Sample[], most: number): Point[] {
  if (samples.length === 0) return []
  if (samples.length <= most) {
    return samples.map(({ at, value }) => ({ at, to: at, count: 1, low: value, middle: value, high: value }))
  }
  const from = (samples[0] as Sample).at
  const span = Math.max(1, (samples.at(-1) as Sample).at - from)
  const parts = Map.groupBy(samples, ({ at }) => Math.min(most - 1, Math.floor(((at - from) / span) * most)))
  return [...parts.values()].map((part) => {
    const values = part.map(({ value }) => value).sort((a, b) => a - b)
    return {
      at: (part[0] as Sample).at,
      to: (part.at(-1) as Sample).at,
      count: part.length,
      low: values[0] as number,
      middle: values[Math.floor(values.length / 2)] as number,
      high: values.at(-1) as number,
    }
  })
}

/** Snapshots of one tier that fall into one place of the timeline. */
export interface Cell {
  /** From 0 (the oldest) to 1 (now). */
  place: number
  count: number
  /** Of the oldest and the newest of them, ms since 1970. */
  at: number
  to: number
}

/**
 * The scale of the timeline. Rules keep less the older it gets, so equal steps stand for growing times: the place of an
 * age is the logarithm of one plus the age in units of `stepMs`.
 */
export interface AgeScale {
  now: number
  /** The greatest age, a day at least, ms. */
  spanMs: number
  stepMs: number
}

const HOUR_MS = 3_600_000
const STEP_MIN_MS = HOUR_MS / 6
const STEP_MAX_MS = 7 * 24 * HOUR_MS
const SPAN_MIN_MS = 24 * HOUR_MS
const NEWEST = 24

/**
 * Chooses the scale for some times: its step is what usually lies between the newest of them.
 * @param times ms since 1970, oldest first.
 */
export function ageScale(times: readonly number[], now: number): AgeScale {
  const newest = times.slice(-NEWEST)
  const gaps = newest
    .slice(1)
    .map((time, index) => time - (newest[index] as number))
    .sort((a, b) => a - b)
  const usual = gaps[Math.floor(gaps.length / 2)] ?? HOUR_MS
  const stepMs = Math.min(Math.max(usual, STEP_MIN_MS), STEP_MAX_MS)
  return { now, spanMs: Math.max(now - (times[0] ?? now), SPAN_MIN_MS), stepMs }
}

/** Where a time is: 0 for the oldest, 1 for now and what is of the future. */
export function placeOf({ now, spanMs, stepMs }: AgeScale, at: number): number {
  const age = Math.min(Math.max(now - at, 0), spanMs)
  return 1 - Math.log1p(age / stepMs) / Math.log1p(spanMs / stepMs)
}

/**
 * Gathers times by their place, so that there are at most `places` cells whatever their number.
 * @param times ms since 1970, oldest first.
 */
export function cellsOf(times: readonly number[], scale: AgeScale, places: number): Cell[] {
  const cells = new Map<number, Cell>()
  for (const at of times) {
    const place = Math.round(placeOf(scale, at) * places) / places
    const cell = cells.get(place)
    if (!cell) cells.set(place, { place, count: 1, at, to: at })
    else {
      cell.count += 1
      cell.to = at
    }
  }
  return [...cells.values()]
}
