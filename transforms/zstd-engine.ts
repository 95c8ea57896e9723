import { accessSync, constants as fsConstants } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { TransformError } from './errors.ts'
import { compressBound, FrameCompressor } from './zstd-codec.ts'

/**
 * `native` is node:zlib's zstd, on the thread pool. `simple-zstd` runs the zstd command, one process a frame: it knows
 * long-distance matching and threads within a frame. `auto` is `simple-zstd` when `long` is asked for, else `native`.
 */
export type ZstdEngine = 'auto' | 'native' | 'simple-zstd'

/** Compresses whole frames, one at a time. */
export interface FrameEngine {
  /** @returns one zstd frame with content size and checksum, in a buffer that is the caller's until the next call. */
  compress(input: Buffer): Promise<Buffer>
  /** What all frames are written to, where that is so: it may be moved to another thread, and is then to be set anew. */
  memory?: ArrayBuffer
  close(): void
}

export interface EngineOptions {
  level: number
  /** Each frame at the level, whatever it gains. */
  fixedLevel: boolean
  frameBytes: number
  /** log2 of the window for long-distance matching. */
  long: number | undefined
  threads: number
}

export const MIN_LONG_LOG = 18
/** What every reader allows without being asked. */
export const MAX_LONG_LOG = 27

/**
 * Decides which engine does what is asked for.
 * @throws TransformError BAD_OPTION when `native` is asked for `long`; UNSUPPORTED when the zstd command is needed and
 * not installed.
 */
export function chooseEngine(engine: ZstdEngine, long: number | undefined): 'native' | 'simple-zstd' {
  const chosen = engine === 'auto' ? (long === undefined ? 'native' : 'simple-zstd') : engine
  if (chosen !== 'native' && chosen !== 'simple-zstd') {
    throw new TransformError(
      'BAD_OPTION',
      `engine is ${JSON.stringify(engine)} and must be auto, native or simple-zstd.`,
    )
  }
  if (chosen === 'native' && long !== undefined) {
    throw new TransformError('BAD_OPTION', 'Long-distance matching (long) needs the engine simple-zstd.')
  }
  // simple-zstd looks for it when it is imported, and throws there.
  if (chosen === 'simple-zstd' && !findCommand('zstd')) {
    throw new TransformError(
      'UNSUPPORTED',
      'The engine simple-zstd needs the zstd command, and none is in the PATH. Install it (apt install zstd), or use the native engine.',
    )
  }
  return chosen
}

export function openEngine(engine: 'native' | 'simple-zstd', options: EngineOptions): FrameEngine {
  return engine === 'native'
    ? new FrameCompressor(options.level, options.frameBytes, !options.fixedLevel)
    : new CommandEngine(options)
}

function findCommand(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name)
    try {
      accessSync(path, fsConstants.X_OK)
      return path
    } catch {}
  }
  return undefined
}

class CommandEngine implements FrameEngine {
  readonly #options: EngineOptions
  #child: Duplex | undefined
  #closed = false

  constructor(options: EngineOptions) {
    this.#options = options
  }

  async compress(input: Buffer): Promise<Buffer> {
    const { level, long, threads } = this.#options
    const { compress } = await import('simple-zstd')
    const zstdOptions = [`--stream-size=${input.length}`, '--check', `-T${threads}`]
    if (long !== undefined) zstdOptions.push(`--long=${long}`)
    if (level > 19) zstdOptions.push('--ultra')
    const child = await compress(level, { zstdOptions })
    this.#child = child
    if (this.#closed) {
      child.destroy()
      throw new TransformError('UNSUPPORTED', 'The compression was ended.')
    }
    const frame = Buffer.allocUnsafeSlow(compressBound(input.length) + 64)
    let held = 0
    try {
      await pipeline([input], child, async (output: AsyncIterable<Buffer>) => {
        for await (const chunk of output) {
          if (held + chunk.length > frame.length) throw new Error('it gave more than zstd can')
          held += chunk.copy(frame, held)
        }
      })
    } catch (cause) {
      throw new TransformError('UNSUPPORTED', `The zstd command failed: ${(cause as Error).message}.`, { cause })
    } finally {
      child.destroy()
      this.#child = undefined
    }
    return frame.subarray(0, held)
  }

  close(): void {
    this.#closed = true
    this.#child?.destroy()
  }
}
