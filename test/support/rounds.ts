/**
 * How far a test goes that could go on for long: every file that imports this runs in `npm test`, and again in
 * `npm run test:slow`, which sets MILLRACE_TEST_ROUNDS.
 */
export function rounds<T>(fast: T, slow: T): T {
  return process.env.MILLRACE_TEST_ROUNDS === 'slow' ? slow : fast
}
