import type { Decision } from '../retention.ts'

/** What keeps a snapshot, or why it is another kind: the rows of the timeline, in their order. */
export const TIERS = [
  { tier: 'hourly', label: 'Hourly' },
  { tier: 'daily', label: 'Daily' },
  { tier: 'weekly', label: 'Weekly' },
  { tier: 'monthly', label: 'Monthly' },
  { tier: 'yearly', label: 'Yearly' },
  { tier: 'last', label: 'Last' },
  { tier: 'within', label: 'By age' },
  { tier: 'floor', label: 'Minimum' },
  { tier: 'newest', label: 'Newest' },
  { tier: 'pinned', label: 'Pinned' },
  { tier: 'future', label: 'Future' },
  { tier: 'unfinished', label: 'Unfinished' },
  { tier: 'remove', label: 'To remove' },
] as const

export type Tier = (typeof TIERS)[number]['tier']

/** How `decideRetention` begins each reason for keeping a snapshot. */
const REASONS: readonly (readonly [RegExp, Tier])[] = [
  [/^newest of hour /, 'hourly'],
  [/^newest of day /, 'daily'],
  [/^newest of week /, 'weekly'],
  [/^newest of month /, 'monthly'],
  [/^newest of year /, 'yearly'],
  [/^last \d+ of \d+$/, 'last'],
  [/^within /, 'within'],
  [/^floor \d+ of \d+$/, 'floor'],
  [/^newest complete snapshot$/, 'newest'],
  [/^pinned$/, 'pinned'],
  [/^dated in the future$/, 'future'],
  [/^unfinished/, 'unfinished'],
]

/** The tier of a reason for keeping; undefined for one that is not known here. */
function tierOf(reason: string): Tier | undefined {
  return REASONS.find(([pattern]) => pattern.test(reason))?.[1]
}

/** The tiers of one decision, in the order of TIERS. An unfinished snapshot stays `unfinished` when it is to go too. */
export function tiersOf({ action, reasons, snapshot }: Decision<{ complete: boolean }>): Tier[] {
  const found = new Set<Tier | undefined>(action === 'remove' ? ['remove'] : reasons.map(tierOf))
  if (!snapshot.complete) found.add('unfinished')
  return TIERS.map(({ tier }) => tier).filter((tier) => found.has(tier))
}

/** A reason for keeping in few words: `daily 3 of 14`. One that is not known here stays as it is. */
export function shortReason(reason: string): { tier: Tier | undefined; text: string } {
  const tier = tierOf(reason)
  if (tier === 'newest') return { tier, text: 'newest' }
  return { tier, text: / \(([a-z]+ \d+ of \d+)\)$/.exec(reason)?.[1] ?? reason }
}
