import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'

const SECRET_VARIABLE = /PASSWORD|SECRET|TOKEN|_KEY$/
const SECRET_FILE = /^--(?:.*password|key|client-secret)-file$/
/** Shorter ones are found by chance. */
const LEAST_BYTES = 4

export interface SecretRun {
  args: readonly string[]
  env: NodeJS.ProcessEnv
}

/**
 * Asserts that what a run of the command has said holds none of the secrets that it was given: those of its environment,
 * and those in the files that its arguments name; as they are, and in base64, hex, JSON and percent encoding.
 */
export function assertNoSecrets(said: Buffer | string, run: SecretRun): void {
  const bytes = Buffer.from(said)
  for (const [where, secret] of secretsOf(run)) {
    for (const [how, form] of formsOf(secret)) {
      assert.ok(!bytes.includes(form), `the output of \`${run.args.join(' ')}\` holds the secret of ${where} (${how})`)
    }
  }
}

function secretsOf({ args, env }: SecretRun): [string, Buffer][] {
  const found: [string, Buffer][] = []
  for (const [name, value] of Object.entries(env)) {
    if (value && SECRET_VARIABLE.test(name)) found.push([name, Buffer.from(value)])
  }
  for (const [index, word] of args.entries()) {
    const file = args[index + 1]
    if (!SECRET_FILE.test(word) || file === undefined) continue
    try {
      const content = readFileSync(file)
      found.push([word, content], [word, Buffer.from(content.toString().trim())])
      found.push([word, Buffer.from(content.toString().trim(), 'hex')])
    } catch {
      // A test of a file that is not there, or is gone by now.
    }
  }
  return found.filter(([, secret]) => secret.length >= LEAST_BYTES)
}

function formsOf(secret: Buffer): [string, Buffer][] {
  const text = secret.toString()
  const forms: [string, string | Buffer][] = [
    ['as it is', secret],
    ['as JSON', JSON.stringify(text).slice(1, -1)],
    ['percent-encoded', encodeURIComponent(text)],
  ]
  for (const encoding of ['base64', 'base64url', 'hex'] as const) forms.push([encoding, secret.toString(encoding)])
  return forms.map(([how, form]) => [how, Buffer.from(form)])
}
