import { parseCron } from '../config/checks.ts'

/** The times of one schedule, in ms since 1970. */
export interface Times {
  /** The first that is later than `after`; undefined when none comes. */
  next(after: number): number | undefined
  /** The last that is not later than `until`; undefined when there was none. */
  latest(until: number): number | undefined
}

/**
 * The times of a cron expression. Fixed times of day (`30 2 * * *`, `0 2,14 * * *`) that the change to daylight saving
 * leaves out come at the first moment after the gap, and those that come twice in autumn count once; `0 * * * *` and
 * the like come each real hour.
 * @param timezone an IANA name; UTC when left out.
 * @throws Error for what is no expression or no zone.
 */
export function createTimes(cron: string, timezone?: string): Times {
  const schedule = parseCron(cron, timezone)
  // Whoever waits asks each minute, and the answer changes only when a time comes: [from, to) has none between them.
  let from: number | undefined
  let to: number | undefined
  const isBetween = (at: number) => from !== undefined && to !== undefined && from <= at && at < to
  const nextRun = (after: number) => schedule.nextRun(new Date(after))?.getTime()

  function next(after: number): number | undefined {
    if (isBetween(after)) return to
    return nextRun(after)
  }

  function latest(until: number): number | undefined {
    if (isBetween(until)) return from
    // Time goes on: most often it is the next one that has come.
    const following = to !== undefined && to <= until ? nextRun(to) : undefined
    if (following !== undefined && until < following) {
      from = to
      to = following
      return from
    }
    // croner goes back from whole seconds, and leaves out the moment that it begins from.
    const [before] = schedule.previousRuns(1, new Date(Math.floor(until / 1000) * 1000 + 1000))
    from = before?.getTime()
    to = nextRun(until)
    return from
  }

  return { next, latest }
}
