import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { couldNotSettle, type LoggedRequest } from './storage-trials.ts'

type Facts = Partial<Pick<LoggedRequest, 'subject' | 'fault' | 'serverMs' | 'reached'>>

const GIVEN = { idleMs: 1000, attempts: 3 }
const OURS = { subject: 'trials/1' }
/** Its body broke off before it told its key. */
const CUT = { fault: 'drop-request' as const, reached: false }

/** Requests in their order, with what `isAnswered` makes of them. */
function logOf(...requests: [kind: string, facts?: Facts][]): LoggedRequest[] {
  return requests.map(([kind, facts = {}], index) => ({
    kind,
    role: kind === 'finish' ? 'commit' : kind === 'token' ? 'renew' : 'settle',
    index,
    method: 'POST',
    url: '/',
    headers: {},
    bodyBytes: 0,
    bodySha256: '',
    bodyHead: '',
    reached: true,
    ...(facts.reached === false ? {} : { serverStatus: 200, serverMs: 1 }),
    ...(facts.fault ? {} : { answered: 200 }),
    ...facts,
  }))
}

const lost = { ...OURS, fault: 'lose-reply' } as const
const refused = { ...OURS, answered: 401 }
const failed = { fault: 'swallow' } as const
const commit: [string, Facts] = ['finish', lost]

describe('what a trial may leave behind', () => {
  const cases: [says: string, proof: boolean, log: LoggedRequest[]][] = [
    ['nothing that begins or commits reached the server', false, logOf(['finish', { ...OURS, ...CUT }])],
    ['it asked for nothing after its commit', false, logOf(commit)],
    ['the server took longer than the idle time', true, logOf(['finish', { ...OURS, serverMs: 1000 }], ['stat', OURS])],
    ['its last request was answered', false, logOf(commit, ['stat', lost], ['stat', lost], ['stat', OURS])],
    ['its last three met faults', true, logOf(commit, ['stat', OURS], ['stat', lost], ['stat', lost], ['stat', lost])],
    ['only two of its last three did', false, logOf(commit, ['stat', OURS], ['stat', lost], ['stat', lost])],
    ['all did, of one kind', true, logOf(commit, ['stat', OURS], ['delete', lost], ['delete', lost])],
    ['what it asked before its commit does not count', true, logOf(['stat', OURS], commit, ['stat', lost])],
    [
      'a broken-off request of another trial comes last',
      true,
      logOf(commit, ['versions', OURS], ['delete', lost], ['delete', lost], ['delete', lost], ['versions', CUT]),
    ],
    [
      'a broken-off request is the last of its own attempts',
      true,
      logOf(commit, ['versions', OURS], ['delete', OURS], ['delete', lost], ['delete', lost], ['delete', CUT]),
    ],
    [
      'the same, and another one of another trial comes after it',
      true,
      logOf(
        commit,
        ['stat', OURS],
        ['delete', OURS],
        ['delete', lost],
        ['delete', lost],
        ['delete', CUT],
        ['stat', CUT],
      ),
    ],
    [
      'its deletion was answered, and another trial has a broken-off request of that kind',
      false,
      logOf(commit, ['stat', OURS], ['delete', lost], ['delete', OURS], ['delete', CUT]),
    ],
    [
      'its last request was refused for its token, and no new one was to be had',
      true,
      logOf(commit, ['stat', refused], ['token', failed], ['token', failed], ['token', failed], ['token']),
    ],
    [
      'the same, and others had begun to ask for one',
      true,
      logOf(commit, ['token', failed], ['token', failed], ['stat', refused], ['token', failed], ['token']),
    ],
    [
      'its last request was refused for its token, and there was a new one',
      false,
      logOf(commit, ['stat', refused], ['token', failed], ['token', failed], ['token'], ['token', failed]),
    ],
    [
      'no token was to be had before it asked',
      false,
      logOf(commit, ['token', failed], ['token', failed], ['token', failed], ['stat', refused]),
    ],
    ['it could not ask without a token', true, logOf(commit, ['token', failed], ['token', failed], ['token', failed])],
    [
      'it asked for nothing, and there was a token',
      false,
      logOf(commit, ['token', failed], ['token', failed], ['token']),
    ],
    ['what was refused for its token has settled nothing', true, logOf(commit, ['stat', refused], ['stat', lost])],
  ]
  for (const [says, proof, log] of cases) {
    it(`${proof ? 'is proved' : 'is not proved'}: ${says}`, () => {
      assert.equal(couldNotSettle(log, GIVEN), proof)
    })
  }

  it('goes by every request where none tells its key', () => {
    const untold = { fault: 'lose-reply' } as const
    assert.equal(couldNotSettle(logOf(commit, ['stat'], ['delete', untold], ['delete', untold]), GIVEN), true)
    assert.equal(couldNotSettle(logOf(commit, ['delete', untold], ['delete', untold], ['stat']), GIVEN), false)
  })
})
