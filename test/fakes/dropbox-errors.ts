import { Refusal } from './http.ts'

type Union = { '.tag': string; [field: string]: unknown }

/** A tagged union of unions, from the outermost tag in, with fields for the innermost. */
export function union(tags: readonly string[], fields: Record<string, unknown> = {}): Union {
  const [tag = '', ...inner] = tags
  return inner.length === 0 ? { '.tag': tag, ...fields } : { '.tag': tag, [tag]: union(inner, fields) }
}

/** A route's own error, 409. */
export function routeError(tags: readonly string[], fields: Record<string, unknown> = {}): Refusal {
  return told(409, tags, union(tags, fields))
}

/** The error of files/upload, whose reason stands beside the session that now has the bytes. */
export function uploadError(reason: readonly string[]): Refusal {
  return told(409, ['path', ...reason], { '.tag': 'path', reason: union(reason), upload_session_id: 'pid_upload' })
}

/** 401, with the tag of AuthError. */
export function authError(tag: string, fields: Record<string, unknown> = {}): Refusal {
  return told(401, [tag], { '.tag': tag, ...fields })
}

/** 422, for the header Dropbox-API-Path-Root. */
export function pathRootError(tag: string, fields: Record<string, unknown> = {}): Refusal {
  return told(422, [tag], union([tag], fields))
}

/** 403, of a team that has used up its calls: https://www.dropbox.com/developers/reference/data-transport-limit */
export function transportLimit(): Refusal {
  return told(403, ['invalid_account_type', 'feature'], union(['invalid_account_type', 'feature']))
}

/** 400: plain text. */
export function badInput(route: string, what: string): Refusal {
  return new Refusal(400, `Error in call to API function "${route}": ${what}`)
}

/** 429. https://www.dropbox.com/developers/reference/data-ingress-guide */
export function rateLimit(reason: 'too_many_requests' | 'too_many_write_operations', seconds: number): Refusal {
  const error = { reason: { '.tag': reason }, retry_after: seconds }
  return new Refusal(429, { error_summary: `${reason}/..`, error }, { 'retry-after': String(seconds) })
}

function told(status: number, tags: readonly string[], error: unknown): Refusal {
  // Dropbox adds a few dots, so that nobody compares the whole.
  return new Refusal(status, { error_summary: `${tags.join('/')}/..`, error }, { 'x-dropbox-request-id': 'fa4e' })
}
