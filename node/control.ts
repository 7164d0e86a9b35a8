/**
 * How commands talk to the owner process: HTTP over a unix socket in the data folder, one method
 * per path, newline-delimited JSON back. Only the user who runs the node can open the socket.
 *
 * Each method answers a stream of values. The last line is `{"end":true}` or `{"error":{code,message}}`,
 * so that a cut connection is never taken for a finished answer. A client that leaves aborts its
 * call's signal.
 */
import { once } from 'node:events'
import { chmod, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { Abortable } from '../manifests/extent.ts'
import { EdgeError, type EdgeErrorCode, isEdgeError } from '../manifests/errors.ts'

export type ControlMethod = (params: unknown, options: Abortable) => AsyncIterable<unknown>
export type ControlMethods = Readonly<Record<string, ControlMethod>>

const PARAMS_BYTES_MAX = 1024 * 1024

interface ControlLine {
  readonly value?: unknown
  readonly end?: true
  readonly error?: { readonly code: EdgeErrorCode; readonly message: string }
}

/** Serves `methods` until disposed. The caller holds the store's lock: a socket left behind is removed. */
export async function serveControl(socketPath: string, methods: ControlMethods): Promise<AsyncDisposable> {
  const server = createServer((incoming, outgoing) => {
    void answer(methods, incoming, outgoing)
  })
  await rm(socketPath, { force: true })
  server.listen(socketPath)
  await once(server, 'listening')
  await chmod(socketPath, 0o600)
  return {
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await rm(socketPath, { force: true })
    },
  }
}

/**
 * Calls one method of the owner.
 * @throws EdgeError what the method threw, or `NOT_READY` when no owner listens there.
 */
export async function* callControl(
  socketPath: string,
  method: string,
  params: unknown,
  { signal }: Abortable,
): AsyncGenerator<unknown> {
  const incoming = await openCall(socketPath, method, params, signal)
  let pending = ''
  incoming.setEncoding('utf8')
  for await (const piece of incoming as AsyncIterable<string>) {
    const lines = (pending + piece).split('\n')
    pending = lines.pop() ?? ''
    for (const line of lines) {
      const { value, end, error } = JSON.parse(line) as ControlLine
      if (error) throw new EdgeError(error.code, error.message)
      if (end) return
      yield value
    }
  }
  throw new EdgeError('NOT_READY', `the node stopped while it answered "${method}"`)
}

async function openCall(
  socketPath: string,
  method: string,
  params: unknown,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const outgoing = request({ socketPath, path: `/${method}`, method: 'POST', signal })
  outgoing.end(JSON.stringify(params ?? null))
  try {
    const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage]
    return incoming
  } catch (cause) {
    signal.throwIfAborted()
    throw new EdgeError('NOT_READY', `no node answers on ${socketPath}`, { cause })
  }
}

async function answer(
  methods: ControlMethods,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  const left = new AbortController()
  outgoing.on('close', () => left.abort())
  const send = async (line: ControlLine) => {
    if (!outgoing.write(`${JSON.stringify(line)}\n`) && !left.signal.aborted) {
      await once(outgoing, 'drain', { signal: left.signal })
    }
  }
  try {
    const name = incoming.url?.slice(1) ?? ''
    const method = Object.hasOwn(methods, name) ? methods[name] : undefined
    if (!method) throw new EdgeError('NOT_FOUND', `no control method "${name}"`)
    for await (const value of method(await readParams(incoming), { signal: left.signal })) {
      await send({ value })
    }
    await send({ end: true })
  } catch (error) {
    if (!left.signal.aborted) await send({ error: errorLineOf(error) }).catch(() => {})
  } finally {
    outgoing.end()
  }
}

function errorLineOf(error: unknown): { code: EdgeErrorCode; message: string } {
  if (isEdgeError(error)) return { code: error.code, message: error.message }
  return { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) }
}

async function readParams(incoming: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of incoming as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes > PARAMS_BYTES_MAX) throw new EdgeError('REQUEST_INVALID', 'too many parameters')
    pieces.push(piece)
  }
  return JSON.parse(Buffer.concat(pieces).toString('utf8') || 'null')
}
