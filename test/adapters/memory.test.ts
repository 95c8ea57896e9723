import { constants } from 'node:buffer'
import { openMemory } from '../../adapters/memory.ts'
import { storageContract } from '../contract/storage.ts'

storageContract('memory', {
  open: openMemory,
  partBytes: 256 * 1024,
  manyKeys: 1500,
  maxObjectBytes: constants.MAX_LENGTH,
})
