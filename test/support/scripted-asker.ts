import assert from 'node:assert/strict'
import type { Asker, Choice, Validate } from '../../lib/cli/init/ask.ts'

export type Answer = string | boolean | number

/**
 * Answers questions in their order, each by the words that it must have. A choice is answered by a part of its label.
 * What is refused is an error here.
 */
export function scripted(script: [RegExp, Answer][]): Asker & { said: string[]; left(): number } {
  const rest = [...script]
  const said: string[] = []
  const next = (message: string): Answer => {
    const [pattern, answer] = rest.shift() ?? assert.fail(`Nobody expected: ${message}`)
    assert.match(message, pattern)
    return answer
  }
  const held = async (message: string, validate: Validate | undefined) => {
    const answer = String(next(message))
    assert.equal(await validate?.(answer), undefined, message)
    return answer
  }
  return {
    said,
    left: () => rest.length,
    text: (message, { initial, validate } = {}) =>
      held(message, validate).then((answer) => (answer === '=' ? (initial ?? '') : answer)),
    hidden: held,
    path: (message, { validate }) => held(message, validate),
    async choose<T>(message: string, choices: readonly Choice<T>[]) {
      const wanted = String(next(message))
      return (
        choices.find(({ label }) => label.includes(wanted)) ?? assert.fail(`${wanted} is no choice of ${message}`)
      ).value
    },
    confirm: async (message) => Boolean(next(message)),
    say: (_, text) => said.push(text),
    box: (_, text) => said.push(text),
  }
}
