import assert from 'node:assert/strict'
import type { Asker, Choice, Validate } from '../../lib/cli/init/ask.ts'

export type Answer = string | boolean | number

/**
 * Answers questions in their order, each by the words that it must have. A choice is answered by a part of its label.
 * `=` takes what stands there already. What is refused is an error here.
 */
export function scripted(script: [RegExp, Answer][]): Asker & { said: string[]; left(): number } {
  const rest = [...script]
  const said: string[] = []
  const next = (message: string): Answer => {
    const [pattern, answer] = rest.shift() ?? assert.fail(`Nobody expected: ${message}`)
    assert.match(message, pattern)
    return answer
  }
  const held = async (message: string, validate: Validate | undefined, initial = '') => {
    const given = String(next(message))
    const answer = given === '=' ? initial : given
    const refusal = await validate?.(answer)
    if (refusal !== undefined) throw new Error(refusal)
    return answer
  }
  return {
    said,
    left: () => rest.length,
    text: (message, { initial, validate } = {}) => held(message, validate, initial),
    hidden: (message, validate) => held(message, validate),
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
