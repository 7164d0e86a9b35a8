/**
 * Plain HTTP for tests: nothing normalised, nothing decoded, no pooling.
 */
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { type NodeServerLimits, type NodeServerParts, createNodeServer } from './server.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: Buffer
}

export interface AskOptions {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface TestNode extends AsyncDisposable {
  readonly port: number
  readonly url: string
  ask(path: string, options?: AskOptions): Promise<Answer>
  /** Sends bytes as they are; all that comes back until the server closes, or `quietMs` pass. */
  raw(text: string | Buffer, quietMs?: number): Promise<string>
}

/** A node on a free port, closed by scope. */
export async function startNode(
  parts: NodeServerParts,
  limits: Partial<NodeServerLimits> = {},
): Promise<TestNode> {
  const node = createNodeServer(parts, limits)
  const { port } = await node.listen({ port: 0 })
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    ask: (path, options) => ask(port, path, options),
    raw: (text, quietMs) => raw(port, text, quietMs),
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  }
}

/** @throws the socket's error when the answer ends before its length. */
export function ask(
  port: number,
  path: string,
  { method = 'GET', headers = {} }: AskOptions = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const req = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, res => {
      const parts: Buffer[] = []
      res.on('data', part => parts.push(part))
      res.on('error', reject)
      res.on('end', () =>
        resolve({
          status: res.statusCode!,
          headers: res.headers as Record<string, string | undefined>,
          body: Buffer.concat(parts),
        }),
      )
    })
    req.on('error', reject)
    req.end()
  })
}

async function raw(port: number, text: string | Buffer, quietMs = 1_000): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  socket.setEncoding('latin1').on('data', part => (received += part))
  socket.on('error', () => {}) // a reset is an answer too
  socket.setTimeout(quietMs, () => socket.destroy())
  await once(socket, 'connect')
  socket.write(text)
  await once(socket, 'close')
  return received
}
