import { parentPort } from 'node:worker_threads'
import { type CryptJob, type CryptOutput, cryptJob, FrameFailure } from './crypt-job.ts'
import type { CryptAnswer, CryptRequest } from './crypt-thread.ts'

// The thread of a CryptThread. Every request has an answer, in order; after a failure it answers nothing but that.

let job: CryptJob | undefined
let failed = false

function work(request: CryptRequest): CryptAnswer {
  if (request.setup) job = cryptJob(request.setup)
  const at = job as CryptJob
  for (const memory of request.free) at.reuse(memory)
  if (request.nonces) at.nonces(request.nonces)
  const outputs: CryptOutput[] = []
  for (const { memory, offset, length } of request.inputs) {
    outputs.push(...at.take(new Uint8Array(memory, offset, length)))
  }
  if (!request.isLast) return { inputs: request.inputs, outputs }
  outputs.push(...at.end())
  return { inputs: request.inputs, outputs, digest: at.digest() }
}

parentPort?.on('message', (request: CryptRequest) => {
  if (failed) return
  let answer: CryptAnswer
  try {
    answer = work(request)
  } catch (error) {
    failed = true
    if (!(error instanceof FrameFailure)) throw error
    const { code, frame, isCut } = error
    answer = { inputs: [], outputs: [], failure: { code, frame, isCut } }
  }
  parentPort?.postMessage(answer, [
    ...answer.inputs.map(({ memory }) => memory),
    ...answer.outputs.map(({ memory }) => memory),
  ])
})
