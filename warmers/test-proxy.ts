/**
 * For tests only: a TCP proxy that makes a far and narrow link of loopback. Bytes of all
 * connections share one rate each way, arrive `delayMs` later, and connections can be cut.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface SlowProxy extends AsyncDisposable {
  readonly url: URL
  /** Payload that was handed on, down. */
  readonly bytesDown: number
  cutAll(): void
}

export async function openSlowProxy(
  to: URL,
  options: { readonly delayMs: number; readonly bytesPerSecond: number },
): Promise<SlowProxy> {
  const sockets = new Set<Socket>()
  let bytesDown = 0
  const down = lane(options)
  const up = lane(options)
  const server = createServer({ noDelay: true }, client => {
    const remote = connect({ host: to.hostname, port: Number(to.port), noDelay: true })
    for (const socket of [client, remote]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => sockets.delete(socket))
    }
    carry(remote, client, async bytes => {
      await down(bytes.length)
      bytesDown += bytes.length
    }).catch(() => undefined) // cut
    carry(client, remote, bytes => up(bytes.length)).catch(() => undefined)
  })
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const cutAll = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`),
    get bytesDown() {
      return bytesDown
    },
    cutAll,
    async [Symbol.asyncDispose]() {
      cutAll()
      await new Promise(done => server.close(done))
    },
  }

  /** In order; several pieces are on their way at once, each `delayMs` behind its turn. */
  async function carry(from: Socket, into: Socket, turn: (bytes: Buffer) => Promise<void>): Promise<void> {
    let last: Promise<unknown> = sleep(options.delayMs) // the handshake
    for await (const part of from as AsyncIterable<Buffer>) {
      for (let at = 0; at < part.length; at += PIECE_BYTES) {
        const bytes = part.subarray(at, at + PIECE_BYTES)
        await turn(bytes)
        const arrives = sleep(options.delayMs)
        const before = last
        last = arrives.then(() => before).then(() => into.destroyed || into.write(bytes))
      }
    }
    await last
    into.end()
  }
}

const PIECE_BYTES = 4096

function lane({ bytesPerSecond }: { readonly bytesPerSecond: number }): (bytes: number) => Promise<void> {
  let freeAt = performance.now()
  return async bytes => {
    freeAt = Math.max(freeAt, performance.now()) + (bytes / bytesPerSecond) * 1000
    const wait = freeAt - performance.now()
    if (wait > 2) await sleep(wait)
  }
}
