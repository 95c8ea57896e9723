import { z } from 'zod'
import { configSchema } from './schema.ts'

/**
 * The JSON Schema (draft 2020-12) of `millrace.yaml`, for editors: what a file may say, as it is written. References
 * between its parts are not in it; `millrace config check` looks at those as well.
 */
export function configJsonSchema(): object {
  return z.toJSONSchema(configSchema, { io: 'input' })
}
