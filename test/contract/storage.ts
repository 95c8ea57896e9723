import { after, before, describe } from 'node:test'
import { abortingTests } from './aborting.ts'
import { callTests } from './calls.ts'
import { keyTests } from './keys.ts'
import { listingTests } from './listing.ts'
import { readingTests } from './reading.ts'
import { ContractRun, type StorageContract } from './support.ts'
import { takingUpTests } from './taking-up.ts'
import { writingTests } from './writing.ts'

export type { StorageContract }

/**
 * Registers the tests that every Storage has to pass: each sentence of its guarantees, held to a store that is
 * really there. For node:test; an adapter's own test file only says how to open it.
 */
export function storageContract(name: string, contract: StorageContract): void {
  const run = new ContractRun(contract)

  describe(`Storage contract: ${name}`, () => {
    before(() => run.open())

    after(() => run.close())

    writingTests(run)
    abortingTests(run)
    takingUpTests(run)
    readingTests(run)
    listingTests(run)
    keyTests(run)
    callTests(run)
  })
}
