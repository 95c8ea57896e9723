import { connect, type Socket } from 'node:net'
import { abortError } from '../../adapters/retry.ts'
import { startLimit } from '../duration.ts'
import { BackupError } from '../errors.ts'

/*
 * The Source RCON protocol as Minecraft speaks it (developer.valvesoftware.com/wiki/Source_RCON_Protocol, wiki.vg/RCON).
 * A packet is a length, an id and a type, each 32 bits little-endian, a text, and two NULs; the length counts what
 * follows it. Minecraft drops a connection whose one read does not hold exactly one packet, so a packet goes out in one
 * write, and the next only when the one before was answered.
 */

const TYPE = { RESPONSE: 0, COMMAND: 2, AUTH_RESPONSE: 2, AUTH: 3 } as const

/** The id of an answer to a wrong password. */
const REFUSED_ID = -1
/** Id, type and two NULs. */
const PACKET_MIN_BYTES = 10
/** Minecraft cuts an answer into pieces of 4096 characters, which take up to 4 bytes each. */
const PACKET_MAX_BYTES = PACKET_MIN_BYTES + 4 * 4096
/** Minecraft reads at most 1460 bytes of a request, with its length and its NULs. */
const REQUEST_TEXT_MAX_BYTES = 1446
const ANSWER_MAX_BYTES = 256 * 1024
/** No server cuts answers into pieces as short as this (old ones: 1234 bytes), so a shorter one is the last. */
const PIECE_MIN_BYTES = 1024
const SHOWN_CHARS = 160

const CONNECT_MS = 10_000
const COMMAND_MS = 30_000

/** Where an RCON listens. */
export interface RconAddress {
  host: string
  port: number
}

export interface RconOptions extends RconAddress {
  password: string
  /** For connecting and logging in together; 10 s when left out. */
  connectMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface RconCommandOptions {
  /** Until the whole answer is there; 30 s when left out. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
}

interface Packet {
  id: number
  type: number
  text: Buffer
}

/** `host:port`, as people write it. */
export function addressText({ host, port }: RconAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** What a server answered, short enough for an error and without Minecraft's colour codes. */
export function shownAnswer(answer: string): string {
  const plain = answer.replace(/§./g, '').replace(/\s+/g, ' ').trim()
  return JSON.stringify(plain.length > SHOWN_CHARS ? `${plain.slice(0, SHOWN_CHARS)}…` : plain)
}

/**
 * Connects to a server and logs in.
 * @throws BackupError SERVER_STOPPED when nobody listens there, SERVER_SILENT when it takes the connection and does not
 * answer in time, QUIESCE for a wrong password or what is no RCON server, USAGE for a password it cannot be given;
 * AbortError.
 */
export async function openRcon(options: RconOptions): Promise<Rcon> {
  const { connectMs = CONNECT_MS, password, signal } = options
  if (password === '') throw new BackupError('USAGE', 'The RCON password is empty: Minecraft takes none.')
  const request = encodePacket(1, TYPE.AUTH, password, 'The RCON password')
  const timer = new Deadline(connectMs, signal)
  let socket: Socket | undefined
  try {
    socket = await openSocket(options, timer)
    const connection = new Connection(socket, addressText(options))
    await login(connection, request, timer)
    return new Rcon(connection)
  } catch (error) {
    socket?.destroy()
    throw error
  } finally {
    timer.clear()
  }
}

/** A connection that is logged in. One command at a time; after one that failed it is closed. */
export class Rcon {
  readonly #connection: Connection
  #lastId = 1

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /**
   * Runs a command, and waits for the whole of its answer.
   * @throws BackupError SERVER_SILENT when it does not come in time, QUIESCE when the connection ends or what comes is
   * no answer, USAGE for a command that is too long; AbortError. Whether it was carried out is not known then.
   */
  async command(text: string, options: RconCommandOptions = {}): Promise<string> {
    const connection = this.#connection
    const request = encodePacket(this.#nextId(), TYPE.COMMAND, text, 'The command')
    const timer = new Deadline(options.timeoutMs ?? COMMAND_MS, options.signal)
    try {
      return await this.#ask(request, text, timer)
    } catch (error) {
      connection.close()
      throw error
    } finally {
      timer.clear()
    }
  }

  /** Closes the connection. May be called again. */
  close(): void {
    this.#connection.close()
  }

  async #ask(request: Buffer, command: string, timer: Deadline): Promise<string> {
    const connection = this.#connection
    const id = this.#lastId
    connection.send(request)
    const pieces: Buffer[] = []
    let bytes = 0
    // An answer does not say which of its pieces is the last. Whoever asks something else after the first piece knows
    // by that answer that all came before. Packets of type 0 are answered by all, and change nothing.
    let last: number | undefined
    for (;;) {
      const packet = await connection.receive(timer, `to ${JSON.stringify(command)}`)
      if (packet.id === last) break
      if (packet.id !== id) {
        // Source servers answer the packet that ends an answer twice.
        if (packet.id > 0 && packet.id < id) continue
        throw connection.failure(
          packet.id === REFUSED_ID ? 'takes no command of this login any more' : 'answered what was not asked',
        )
      }
      bytes += packet.text.length
      if (bytes > ANSWER_MAX_BYTES) throw connection.failure(`answered more than ${ANSWER_MAX_BYTES} bytes`)
      pieces.push(packet.text)
      if (last !== undefined) continue
      if (packet.text.length < PIECE_MIN_BYTES) break
      last = this.#nextId()
      connection.send(encodePacket(last, TYPE.RESPONSE, '', 'The end'))
    }
    return Buffer.concat(pieces).toString('utf8')
  }

  #nextId(): number {
    // Ids are signed, and -1 means something.
    this.#lastId = this.#lastId === 0x7fff_ffff ? 2 : this.#lastId + 1
    return this.#lastId
  }
}

async function login(connection: Connection, request: Buffer, timer: Deadline): Promise<void> {
  connection.send(request)
  for (;;) {
    const packet = await connection.receive(timer, 'to the login')
    if (packet.id === REFUSED_ID) throw connection.failure('refused the password. Check it against rcon.password')
    if (packet.id !== 1) throw connection.failure('answered what was not asked. It may be no RCON server')
    if (packet.type === TYPE.AUTH_RESPONSE) return
    // Source servers send an empty response before the one that counts.
    if (packet.type !== TYPE.RESPONSE) throw connection.failure('answered what was not asked. It may be no RCON server')
  }
}

function encodePacket(id: number, type: number, text: string, what: string): Buffer {
  const body = Buffer.from(text, 'utf8')
  if (body.length > REQUEST_TEXT_MAX_BYTES || body.includes(0)) {
    throw new BackupError('USAGE', `${what} cannot be sent: at most ${REQUEST_TEXT_MAX_BYTES} bytes, and no NUL.`)
  }
  const packet = Buffer.alloc(4 + PACKET_MIN_BYTES + body.length)
  packet.writeInt32LE(PACKET_MIN_BYTES + body.length, 0)
  packet.writeInt32LE(id, 4)
  packet.writeInt32LE(type, 8)
  body.copy(packet, 12)
  return packet
}

/** One limit of time for several waits, together with the caller's signal. */
class Deadline {
  readonly ms: number
  readonly signal: AbortSignal
  readonly #caller: AbortSignal | undefined
  readonly #stop = new AbortController()
  /** Takes the limit back. */
  readonly clear: () => void

  constructor(ms: number, caller: AbortSignal | undefined) {
    this.ms = ms
    this.#caller = caller
    this.clear = startLimit(ms, () => this.#stop.abort())
    this.signal = caller ? AbortSignal.any([caller, this.#stop.signal]) : this.#stop.signal
  }

  /** Why it ended: the caller's abort, or the error that stands for the time being over. */
  reason(late: () => Error): Error {
    return this.#caller?.aborted ? abortError(this.#caller) : late()
  }
}

function silent(address: string, to: string, ms: number): BackupError {
  return new BackupError(
    'SERVER_SILENT',
    `The server at ${address} took the connection and gave no answer ${to} within ${ms / 1000} s. It may be paused, hang, or be busy.`,
  )
}

function openSocket(address: RconAddress, timer: Deadline): Promise<Socket> {
  const shown = addressText(address)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address.host, port: address.port, noDelay: true })
    const settle = (error?: Error) => {
      timer.signal.removeEventListener('abort', onAbort)
      socket.removeAllListeners('connect')
      if (error) {
        socket.destroy()
        reject(error)
      } else {
        resolve(socket.off('error', onError))
      }
    }
    const onError = (error: NodeJS.ErrnoException) => {
      const { code, message } = error
      settle(
        code === 'ECONNREFUSED'
          ? new BackupError(
              'SERVER_STOPPED',
              `Nothing listens at ${shown}: the server is stopped, or its RCON is off (enable-rcon, rcon.port).`,
            )
          : new BackupError('QUIESCE', `The server at ${shown} cannot be reached: ${message || code}.`),
      )
    }
    // A host that drops packets says nothing of the server on it: neither stopped nor paused.
    const onAbort = () =>
      settle(
        timer.reason(
          () =>
            new BackupError(
              'QUIESCE',
              `The server at ${shown} cannot be reached: no connection in ${timer.ms / 1000} s.`,
            ),
        ),
      )
    socket.once('connect', () => settle())
    socket.on('error', onError)
    if (timer.signal.aborted) onAbort()
    else timer.signal.addEventListener('abort', onAbort, { once: true })
  })
}

/** Packets over a socket. What comes is checked before it is kept. */
class Connection {
  readonly #socket: Socket
  readonly #address: string
  readonly #packets: Packet[] = []
  #held: Buffer = Buffer.alloc(0)
  #ended: Error | undefined
  #wake: () => void = () => {}

  constructor(socket: Socket, address: string) {
    this.#socket = socket
    this.#address = address
    socket.on('data', (chunk) => this.#take(chunk))
    socket.on('error', (error) => this.#end(this.failure(`closed the connection (${error.message})`)))
    socket.on('close', () => this.#end(this.failure('closed the connection')))
  }

  send(packet: Buffer): void {
    this.#socket.write(packet)
  }

  close(): void {
    this.#end(this.failure('was left'))
    this.#socket.destroy()
  }

  failure(what: string): BackupError {
    return new BackupError('QUIESCE', `The server at ${this.#address} ${what}.`)
  }

  /** @param to what is answered, for the error. */
  async receive(timer: Deadline, to: string): Promise<Packet> {
    for (;;) {
      const packet = this.#packets.shift()
      if (packet) return packet
      if (this.#ended) throw this.#ended
      if (timer.signal.aborted) throw timer.reason(() => silent(this.#address, to, timer.ms))
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        timer.signal.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  #end(error: Error): void {
    this.#ended ??= error
    this.#held = Buffer.alloc(0)
    this.#wake()
  }

  #take(chunk: Buffer): void {
    if (this.#ended) return
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    while (this.#held.length >= 4) {
      const length = this.#held.readInt32LE(0)
      if (length < PACKET_MIN_BYTES || length > PACKET_MAX_BYTES) {
        this.#refuse()
        return
      }
      if (this.#held.length < 4 + length) break
      const packet = this.#held.subarray(4, 4 + length)
      if (packet.readInt16LE(length - 2) !== 0) {
        this.#refuse()
        return
      }
      this.#packets.push({
        id: packet.readInt32LE(0),
        type: packet.readInt32LE(4),
        text: Buffer.from(packet.subarray(8, length - 2)),
      })
      this.#held = this.#held.subarray(4 + length)
    }
    // Nobody asked for so much: more would be kept without a limit.
    if (this.#packets.reduce((sum, { text }) => sum + text.length + PACKET_MIN_BYTES, 0) > ANSWER_MAX_BYTES) {
      this.#refuse()
      return
    }
    this.#wake()
  }

  #refuse(): void {
    this.#packets.length = 0
    this.#end(this.failure('sent what is no RCON packet. Check that the port is rcon.port and not the game'))
    this.#socket.destroy()
  }
}
