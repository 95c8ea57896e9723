// `npm run docs:api`: the API reference, from the docstrings, into docs/api. It fails when anything that the package
// exports has no docstring.
import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { join } from 'node:path'

// TypeDoc needs the compiler's API, which TypeScript 7 does not have yet: it gets TypeScript 6, and the build keeps 7.
// See docs/decisions/0011-api-reference.md.
registerHooks({
  resolve: (specifier, context, next) => next(specifier === 'typescript' ? 'typescript6' : specifier, context),
})
const { Application, LogLevel } = await import('typedoc')

const ROOT = join(import.meta.dirname, '..')
const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const entryPoints = Object.values<{ default: string } | string>(exports)
  .filter((target) => typeof target !== 'string')
  .map(({ default: built }) => join(ROOT, built.replace('dist/', '').replace(/\.js$/, '.ts')))

const app = await Application.bootstrap({
  name: 'millrace',
  entryPoints,
  tsconfig: join(ROOT, 'tsconfig.json'),
  readme: join(ROOT, 'docs/api-start.md'),
  out: join(ROOT, 'docs/api'),
  excludePrivate: true,
  excludeInternal: true,
  // What Node's own streams have is in Node's documentation.
  excludeExternals: true,
  disableSources: true,
  githubPages: false,
  blockTags: ['@param', '@returns', '@throws'],
  requiredToBeDocumented: ['Function', 'Class', 'Interface', 'TypeAlias', 'Variable', 'Method'],
  validation: { notDocumented: true, notExported: false, invalidLink: true, invalidPath: true },
  // What Node calls on a stream of ours.
  intentionallyNotDocumented: [
    'adapters.MultipartWritable._write',
    'adapters.MultipartWritable._writev',
    'adapters.MultipartWritable._final',
    'adapters.MultipartWritable._destroy',
    'adapters.ResumingReadable._read',
    'adapters.ResumingReadable._destroy',
  ],
  treatValidationWarningsAsErrors: true,
  treatWarningsAsErrors: true,
  logLevel: LogLevel.Warn,
})
const project = await app.convert()
if (project) {
  app.validate(project)
  await app.generateOutputs(project)
}
if (!project || app.logger.hasErrors() || app.logger.hasWarnings()) process.exit(1)
console.log(`The API reference is in docs/api: ${entryPoints.length} entry points.`)
