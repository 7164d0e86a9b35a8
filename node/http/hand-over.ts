/**
 * From a worker to the owner: requests that are not for bytes that lie here.
 *
 * Workers only read. What needs a fetch, a heal or another part of the node goes on to the owner's
 * socket as it came, and its answer comes back as it is. Bodies stream; when one side leaves, the
 * other is let go.
 */
import { type ClientRequest, type IncomingMessage, type ServerResponse, request } from 'node:http'
import { EdgeError } from '../../manifests/errors.ts'
import { problemOf, sendProblem } from './problem.ts'

/** Hop by hop (RFC 9110 §7.6.1): each connection says its own. */
const HOP_FIELDS = new Set(['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade'])

/** @param socketPath where the owner listens for its workers. */
export function handOver(req: IncomingMessage, res: ServerResponse, socketPath: string): void {
  if (res.headersSent) return void res.destroy()
  const { method, url: path } = req
  const asked: ClientRequest = request(
    {
      socketPath,
      path,
      headers: endToEnd(req.rawHeaders),
      setHost: false,
      ...(method === undefined ? {} : { method }),
    },
    answer => {
      res.writeHead(answer.statusCode ?? 502, endToEnd(answer.rawHeaders))
      answer.pipe(res)
      answer.once('error', () => res.destroy()) // cut short there, cut short here
    },
  )
  asked.once('error', cause => {
    if (res.headersSent) return void res.destroy()
    const away = new EdgeError('NOT_READY', 'the owner of the store is away for a moment', { cause })
    sendProblem(res, problemOf(away, req.url), ['Retry-After', '2'])
  })
  res.once('close', () => asked.destroy())
  req.pipe(asked)
}

function endToEnd(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter((_, i) => !HOP_FIELDS.has(rawHeaders[i - (i % 2)]!.toLowerCase()))
}
