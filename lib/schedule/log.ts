import { formatBytes, formatDuration, formatRatio, printable } from '../cli/format.ts'
import type { Pending, Reason } from './plan.ts'
import type { SchedulerEvent } from './scheduler.ts'

const REASONS: Readonly<Record<Reason, string>> = {
  schedule: 'on schedule',
  'catch-up': 'to make up for a missed run',
  retry: 'as a retry',
  'run-now': 'at the start',
}

/** A time as the log shows it, to the second. */
export function timeText(at: number): string {
  return new Date(at).toISOString().replace(/\.\d{3}Z$/, 'Z')
}

/** An event of the scheduler as a program reads it: times as ISO 8601. */
export function eventFields(event: SchedulerEvent): Record<string, unknown> {
  const time = new Date(event.time).toISOString()
  switch (event.event) {
    case 'clock-step':
      return { time, byMs: event.byMs }
    case 'run-planned': {
      const { server, job, at, due, reason } = event
      return { time, server, job, at: isoOf(at), due: isoOf(due), reason }
    }
    case 'run-skipped': {
      const { server, job, due, why } = event
      return { time, server, job, due: isoOf(due), why }
    }
    case 'run-start': {
      const { server, job, due, reason } = event
      return { time, server, job, due: isoOf(due), reason }
    }
    default: {
      const { server, job, outcome, meaning, elapsedMs, result, next } = event
      const { exitCode, signal, snapshot, verified, warnings, error } = result
      return {
        ...{
          time,
          server,
          job,
          outcome,
          exitCode,
          signal: signal ?? null,
          meaning,
          elapsedMs: Math.round(elapsedMs),
        },
        warnings,
        ...(snapshot === undefined
          ? {}
          : { id: snapshot.id, bytes: snapshot.bytes, storedBytes: snapshot.storedBytes }),
        ...(verified === undefined ? {} : { id: verified.id, status: verified.status }),
        ...(error === undefined ? {} : { message: error }),
        next: next === undefined ? null : { at: isoOf(next.at), due: isoOf(next.due), reason: next.reason },
      }
    }
  }
}

/** The same as a line for people. */
export function eventText(event: SchedulerEvent): string {
  const line = (text: string) => `${timeText(event.time)} ${text}`
  if (event.event === 'clock-step') {
    const by = formatDuration(Math.abs(event.byMs))
    return line(event.byMs < 0 ? `the clock was set back by ${by}` : `${by} are gone: a sleep, or the clock was set`)
  }
  const who = `${event.server} ${event.job}`
  switch (event.event) {
    case 'run-planned':
      return line(`${who}: ${planText(event)}`)
    case 'run-skipped':
      return line(
        event.why === 'missed'
          ? `${who}: ${timeText(event.due)} was missed, and is left out`
          : `${who}: ${timeText(event.due)} came while a run was at work, and is left out`,
      )
    case 'run-start':
      return line(`${who}: begins ${REASONS[event.reason]}`)
    default:
      return line(`${who}: ${endText(event)}`)
  }
}

/** When a job runs next. */
export function planText({ at, reason }: Pending): string {
  return `next ${timeText(at)}${reason === 'schedule' ? '' : `, ${REASONS[reason]}`}`
}

function endText({ meaning, elapsedMs, result, next }: SchedulerEvent & { event: 'run-end' }): string {
  const { exitCode, snapshot, verified, warnings, error } = result
  const parts = [`${meaning} (exit code ${exitCode ?? 'none'}) in ${formatDuration(elapsedMs)}`]
  if (snapshot) {
    const { id, bytes, storedBytes } = snapshot
    parts.push(`${id}, ${formatBytes(bytes)} -> ${formatBytes(storedBytes)} (ratio ${formatRatio(bytes, storedBytes)})`)
  }
  if (verified) parts.push(`${verified.id} is ${verified.status}`)
  if (warnings > 0) parts.push(`${warnings} ${warnings === 1 ? 'warning' : 'warnings'}`)
  if (error !== undefined) parts.push(printable(error))
  if (next) parts.push(planText(next))
  return parts.join('; ')
}

function isoOf(at: number): string {
  return new Date(at).toISOString()
}
