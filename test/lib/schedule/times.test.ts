import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTimes } from '../../../lib/schedule/times.ts'

const at = (text: string) => Date.parse(text)

function between(cron: string, timezone: string, from: string, to: string): string[] {
  const times = createTimes(cron, timezone)
  const found: string[] = []
  for (let time = times.next(at(from)); time !== undefined && time < at(to); time = times.next(time)) {
    assert.equal(createTimes(cron, timezone).latest(time), time)
    found.push(new Date(time).toISOString().replace(':00.000Z', 'Z'))
  }
  return found
}

test('several fixed times of a day come each once in the nights when the clock changes', () => {
  const spring = ['Europe/Berlin', '2026-03-28T23:30:00Z', '2026-03-29T22:00:00Z'] as const
  const autumn = ['Europe/Berlin', '2026-10-24T22:30:00Z', '2026-10-25T23:00:00Z'] as const
  assert.deepEqual(between('30 2,14 * * *', ...spring), ['2026-03-29T01:00Z', '2026-03-29T12:30Z'])
  assert.deepEqual(between('30 2,14 * * *', ...autumn), ['2026-10-25T00:30Z', '2026-10-25T13:30Z'])
  assert.deepEqual(between('15,45 2 * * *', ...autumn), ['2026-10-25T00:15Z', '2026-10-25T00:45Z'])
  // All that the gap leaves out is made up for at once.
  assert.deepEqual(between('15,45 2-3 * * *', ...spring), [
    '2026-03-29T01:00Z',
    '2026-03-29T01:15Z',
    '2026-03-29T01:45Z',
  ])
  // Half an hour.
  const lordHowe = ['Australia/Lord_Howe', '2026-10-03T14:00:00Z', '2026-10-04T12:00:00Z'] as const
  assert.deepEqual(between('15 2,14 * * *', ...lordHowe), ['2026-10-03T15:30Z', '2026-10-04T03:15Z'])
})

test('what comes at a step comes by real time, whatever the clock does', () => {
  const times = between('*/30 1-3 * * *', 'Europe/Berlin', '2026-10-24T22:30:00Z', '2026-10-25T23:00:00Z')
  assert.equal(times.length, 8)
  const spring = between('0 */2 * * *', 'Europe/Berlin', '2026-03-28T22:30:00Z', '2026-03-29T04:30:00Z')
  assert.deepEqual(spring, ['2026-03-28T23:00Z', '2026-03-29T02:00Z', '2026-03-29T04:00Z'])
})
