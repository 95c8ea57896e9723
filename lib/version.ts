import { readFileSync } from 'node:fs'
import { findPackageJSON } from 'node:module'

/** millrace's version, from its package. */
export const VERSION: string = JSON.parse(readFileSync(findPackageJSON('.', import.meta.url) as string, 'utf8')).version
