import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { ROOT } from './run.ts'

interface LockedPackage {
  dev?: boolean
  hasInstallScript?: boolean
  version?: string
}

/** What a program in TypeScript needs beside the package. */
const CONSUMER_TYPES = ['@types/node', 'undici-types']

/** The packages of our lock file, those that come with the package or those of a consumer too, by their folder. */
export function lockedPackages(which: 'production' | 'consumer'): [string, LockedPackage][] {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'))
  const types = CONSUMER_TYPES.map((name) => `node_modules/${name}`)
  return Object.entries<LockedPackage>(lock.packages).filter(
    ([path, { dev }]) => path !== '' && (!dev || (which === 'consumer' && types.includes(path))),
  )
}

/**
 * A project with nothing but the package and @types/node, for `npm ci`. Its lock file has the versions and addresses of
 * ours, so npm takes all of it from the cache that our own `npm ci` has filled, and asks no registry.
 * @param tarball the packed package.
 */
export function emptyProject(folder: string, tarball: string): string {
  mkdirSync(folder, { recursive: true })
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const { name, version, dependencies, bin, engines, license } = manifest
  const resolved = `file:../${basename(tarball)}`
  const packages = Object.fromEntries(lockedPackages('consumer').map(([path, { dev: _, ...entry }]) => [path, entry]))
  const types = packages['node_modules/@types/node']?.version as string
  const project = {
    name: 'consumer',
    version: '1.0.0',
    type: 'module',
    dependencies: { [name]: resolved, '@types/node': types },
  }
  const lock = {
    name: 'consumer',
    version: '1.0.0',
    lockfileVersion: 3,
    requires: true,
    packages: {
      '': { name: 'consumer', version: '1.0.0', dependencies: project.dependencies },
      ...packages,
      [`node_modules/${name}`]: { version, resolved, license, dependencies, bin, engines },
    },
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(project))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify(lock))
  return folder
}
