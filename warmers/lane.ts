/**
 * One connection at a time to one server, with its bytes counted on the raw socket, beneath TLS:
 * what the kernel carried as TCP payload. A lane serves one request at once, so that what its
 * socket moved between two looks belongs to that request.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { buildConnector, Client } from 'undici'
import { EdgeError } from '../manifests/errors.ts'
import { readingInto } from './socket-buffers.ts'

export interface LaneOptions {
  readonly connectMs: () => number
  /** Binds a link: the address of the interface to go out by. */
  readonly localAddress?: string | undefined
  /** An HTTP proxy, by CONNECT for all schemes: `http://[user:password@]host:port`. */
  readonly proxyUrl?: string | undefined
  /** Read at once. */
  readonly readBytes?: number
  /** For servers with a certificate of their own. */
  readonly ca?: string | undefined
}

export interface Moved {
  readonly down: number
  readonly up: number
  readonly connections: number
  /** Of `down` and `up`: spent on opening connections. */
  readonly connectDown: number
  readonly connectUp: number
}

export class Lane {
  readonly client: Client
  readonly #live = new Set<Socket>()
  readonly #options: LaneOptions
  #closed = { down: 0, up: 0 }
  #seen = { down: 0, up: 0 }
  #opened = { connections: 0, down: 0, up: 0 }

  constructor(origin: string, options: LaneOptions) {
    this.#options = options
    const upgrade = buildConnector({ allowH2: false, timeout: 0, ...(options.ca ? { ca: options.ca } : {}) })
    this.client = new Client(origin, {
      pipelining: 1,
      keepAliveTimeout: 30_000,
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: 16 * 1024,
      allowH2: false,
      connect: (target, callback) => {
        const settle = (error: Error | null, socket?: Socket) =>
          error ? callback(error, null) : callback(null, socket as Socket)
        this.#dial(target.hostname, Number(target.port) || (target.protocol === 'https:' ? 443 : 80))
          .then(raw => {
            if (target.protocol !== 'https:') return this.#connected(raw, () => settle(null, raw))
            upgrade({ ...target, httpSocket: raw }, (error, socket) =>
              error ? settle(error) : this.#connected(raw, () => settle(null, socket)),
            )
          })
          .catch(settle)
      },
    })
  }

  /** What moved since the last look. */
  look(): Moved {
    let { down, up } = this.#closed
    for (const socket of this.#live) {
      down += socket.bytesRead
      up += socket.bytesWritten
    }
    const opened = this.#opened
    const moved = {
      down: down - this.#seen.down,
      up: up - this.#seen.up,
      connections: opened.connections,
      connectDown: opened.down,
      connectUp: opened.up,
    }
    this.#seen = { down, up }
    this.#opened = { connections: 0, down: 0, up: 0 }
    return moved
  }

  #connected(raw: Socket, then: () => void): void {
    this.#opened.connections++
    this.#opened.down += raw.bytesRead
    this.#opened.up += raw.bytesWritten
    then()
  }

  async #dial(host: string, port: number): Promise<Socket> {
    const { proxyUrl } = this.#options
    if (!proxyUrl) return this.#tcp(host, port)
    const proxy = new URL(proxyUrl)
    const socket = await this.#tcp(proxy.hostname, Number(proxy.port) || 80)
    await tunnel(socket, proxy, `${host}:${port}`, this.#options.connectMs())
    return socket
  }

  #tcp(host: string, port: number): Promise<Socket> {
    const { localAddress } = this.#options
    const connectMs = this.#options.connectMs()
    const { promise, resolve, reject } = Promise.withResolvers<Socket>()
    const socket: Socket = connectTcp({
      host: host.replace(/^\[|\]$/g, ''),
      port,
      noDelay: true,
      onread: readingInto(bytes => socket.push(bytes), this.#options.readBytes),
      ...(localAddress ? { localAddress } : {}),
    })
    const timer = setTimeout(
      () =>
        socket.destroy(
          new EdgeError('UPSTREAM_STALLED', `${host}:${port}: no connection in ${connectMs} ms`),
        ),
      connectMs,
    )
    this.#live.add(socket)
    socket.once('close', () => {
      this.#live.delete(socket)
      this.#closed = { down: this.#closed.down + socket.bytesRead, up: this.#closed.up + socket.bytesWritten }
    })
    socket.once('error', reject)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', reject)
      socket.on('error', () => undefined) // undici listens too; between the two nobody would
      resolve(socket)
    })
    socket.once('close', () => clearTimeout(timer))
    return promise
  }
}

/** RFC 9110 §9.3.6. */
async function tunnel(socket: Socket, proxy: URL, authority: string, ms: number): Promise<void> {
  const user = decodeURIComponent(proxy.username)
  const credentials = Buffer.from(`${user}:${decodeURIComponent(proxy.password)}`).toString('base64')
  socket.write(
    `CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n${user ? `proxy-authorization: Basic ${credentials}\r\n` : ''}\r\n`,
  )
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const timer = setTimeout(() => reject(new Error(`proxy: no answer after ${ms} ms`)), ms)
  let head = ''
  const listen = () => {
    for (let byte = socket.read(1); byte; byte = socket.read(1)) {
      head += (byte as Buffer).toString('latin1')
      if (head.length > 16 * 1024) return reject(new Error('proxy: endless answer'))
      if (head.endsWith('\r\n\r\n'))
        return /^HTTP\/1\.[01] 2\d\d/.test(head) ? resolve() : reject(refused(head))
    }
  }
  const ended = () => reject(new Error('proxy: closed the connection'))
  socket.on('readable', listen).once('close', ended)
  try {
    await promise
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
    socket.off('readable', listen).off('close', ended)
  }
}

function refused(head: string): EdgeError {
  return new EdgeError('UPSTREAM_REFUSED', `proxy: ${head.slice(0, head.indexOf('\r'))}`)
}
