/** Shorter ones would be found in words that have nothing to do with them. */
const LEAST_CHARACTERS = 4
const SECRET_VARIABLE = /PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|_KEY$/

const seen = new Set<string>()

/** Notes a secret that this run has read, so that `redact` takes it out of what is said. */
export function noteSecret(secret: string | Uint8Array): void {
  const raw = Buffer.from(secret)
  const text = raw.toString()
  const forms = [text, encodeURIComponent(text), JSON.stringify(text).slice(1, -1)]
  for (const encoding of ['base64', 'base64url', 'hex'] as const) forms.push(raw.toString(encoding))
  for (const form of forms) if (form.length >= LEAST_CHARACTERS) seen.add(form)
}

/** The text without the secrets that were noted, and those of the environment, in any of their usual encodings. */
export function redact(text: string): string {
  for (const [name, value] of Object.entries(process.env)) if (value && SECRET_VARIABLE.test(name)) noteSecret(value)
  let clean = text
  // The longest first: one may be a part of another.
  for (const secret of [...seen].sort((a, b) => b.length - a.length)) clean = clean.replaceAll(secret, '[secret]')
  return clean
}
