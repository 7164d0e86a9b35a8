/**
 * Ends a server without cutting anybody off: open answers finish, idle connections close.
 *
 * `http.Server` calls a connection idle once `end()` was called on its answer, even while megabytes of
 * it are still on their way, and destroys it. So connections are counted here, and one is idle when
 * no answer is being made for it and nothing waits in its socket.
 */
import { once } from 'node:events'
import type { Server, ServerResponse } from 'node:http'
import { Server as NetServer, type Socket } from 'node:net'

const LOOK_MS = 25

export class Connections {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #draining = false

  constructor(server: Server) {
    this.#server = server
    server.on('connection', socket => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** While true, answers should be the last of their connection. */
  get draining(): boolean {
    return this.#draining
  }

  /**
   * Accepts nothing more, and resolves when all connections are gone; after `drainMs` they are cut.
   * @param answers those being made now.
   */
  async drain(drainMs: number, answers: () => Iterable<ServerResponse>): Promise<void> {
    if (this.#draining || !this.#server.listening) return
    this.#draining = true
    const closed = once(this.#server, 'close')
    NetServer.prototype.close.call(this.#server)
    this.#closeIdle(answers())
    const look = setInterval(() => this.#closeIdle(answers()), LOOK_MS)
    const bound = setTimeout(() => this.#server.closeAllConnections(), drainMs)
    await closed
    clearInterval(look)
    clearTimeout(bound)
    this.#server.close() // stops its own timer, too
  }

  #closeIdle(answers: Iterable<ServerResponse>): void {
    const busy = new Set([...answers].map(({ socket }) => socket))
    for (const socket of this.#sockets) {
      if (!busy.has(socket) && socket.writableLength === 0) socket.destroySoon()
    }
  }
}
