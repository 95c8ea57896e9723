import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** Real saves, for tests and measurements where there are some; none are in the repository. */
export const WORLDS = process.env.MILLRACE_WORLDS ?? join(import.meta.dirname, '../../../shared/worlds')

/** For a test's `skip`. */
export const NO_WORLDS = existsSync(WORLDS) ? false : 'no real worlds here; MILLRACE_WORLDS may name a folder'
