// Backs a folder up with a journal, as its parent tells it to: a process that is killed in the middle of it.
import { openBackups } from '../../lib/index.ts'
import { openPartsStore, type PartsMoment } from './parts-store.ts'

/** What a process is to do, as a message to it. */
export interface ResumeTask {
  root: string
  source: string
  journals: string
  resume: boolean | 'strict'
  /** Of a raw key, hex; none for a snapshot that is not encrypted. */
  key?: string
  moment?: PartsMoment | undefined
}

/** What it says that was not killed. */
export interface ResumeDone {
  id: string
  takenUp: { since: number; heldBytes: number; sentBytes: number } | null
  warnings: string[]
  error?: { code: string; message: string }
}

process.once('message', async ({ root, source, journals, resume, key, moment }: ResumeTask) => {
  const storage = await openPartsStore(root, moment)
  const keys = key === undefined ? { encryption: false } : { key: Buffer.from(key, 'hex') }
  const backups = await openBackups({ storage, server: 'survival', ...keys })
  const warnings: string[] = []
  const onWarning = ({ message }: { message: string }) => warnings.push(message)
  try {
    const { id, takenUp } = await backups.create(source, { journal: { folder: journals, resume }, onWarning })
    process.send?.({ id, takenUp, warnings } satisfies ResumeDone)
  } catch (error) {
    const { code, message } = error as { code: string; message: string }
    process.send?.({ id: '', takenUp: null, warnings, error: { code, message } } satisfies ResumeDone)
  }
  process.disconnect()
})
