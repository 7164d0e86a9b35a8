/**
 * `/repo/…`: this node's repository view, plain static files for other nodes and for TUF clients.
 *
 * What is there, and that it is verified (I1), is the view's business; this part speaks HTTP: single
 * ranges, entity tags, immutability of everything but `timestamp.json`, back-pressure. A read that
 * fails in mid-body aborts the connection.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { parseItemPath } from '../../manifests/item-path.ts'
import { fieldsWith, problemOf, sendProblem } from './problem.ts'
import { contentRange, planRanges } from './ranges.ts'
import { parseSegments } from './request-path.ts'

const PIECE_BYTES = 256 * 1024

export interface RepoView {
  /** Bytes of the file, undefined when this node does not keep it. */
  size(path: string): Promise<number | undefined>
  /**
   * Verified bytes, `offset + length` never past the end. Undefined: gone since `size`.
   * @param path relative, without `.` and `..`, such as `metadata/timestamp.json`.
   */
  read(
    path: string,
    range: { readonly offset: number; readonly length: number },
    options: Abortable,
  ): Promise<Uint8Array | undefined>
}

/** Answers one request; never throws. */
export async function answerRepo(
  view: RepoView,
  req: IncomingMessage,
  res: ServerResponse,
  pathname: string,
): Promise<void> {
  const gone = new AbortController()
  res.once('close', () => gone.abort())
  try {
    if (req.method !== 'GET' && req.method !== 'HEAD')
      throw new EdgeError('METHOD_NOT_ALLOWED', 'the repository is read with GET and HEAD')
    const path = parseSegments(pathname.slice('/repo/'.length)).join('/')
    const folder = path === '' || pathname.endsWith('/')
    const sizeBytes = folder ? undefined : await view.size(parseItemPath(path))
    if (sizeBytes === undefined) throw new EdgeError('NOT_FOUND', `this node does not keep ${path}`)
    await send(view, req, res, path, sizeBytes, gone)
  } catch (error) {
    if (res.headersSent) res.destroy()
    else if (!gone.signal.aborted) sendProblem(res, problemOf(error, req.url), fieldsWith(error, 30))
  }
}

async function send(
  view: RepoView,
  req: IncomingMessage,
  res: ServerResponse,
  path: string,
  sizeBytes: number,
  { signal }: AbortController,
): Promise<void> {
  const fields = fieldsOf(path)
  const plan =
    req.method === 'GET' && req.headers.range !== undefined && req.headers['if-range'] === undefined
      ? planRanges(req.headers.range, sizeBytes)
      : 'whole'
  if (plan === 'outside') {
    const outside = new EdgeError('RANGE_OUTSIDE_ITEM', `the file has ${sizeBytes} bytes`)
    sendProblem(res, problemOf(outside, req.url), ['Content-Range', `bytes */${sizeBytes}`])
    return
  }
  // Several ranges at once are for items; here the whole file is a correct answer (RFC 9110 §14.2).
  const range = plan !== 'whole' && plan.length === 1 ? plan[0] : undefined
  const { first, last } = range ?? { first: 0, last: sizeBytes - 1 }

  let piece = await pieceAt(view, path, first, last, signal) // before anything is promised
  // biome-ignore format: a field and its value on each line
  res.writeHead(range ? 206 : 200, [
    ...fields,
    'Accept-Ranges', 'bytes',
    'Content-Length', String(last - first + 1),
    ...(range ? ['Content-Range', contentRange(range, sizeBytes)] : []),
  ])
  if (req.method === 'HEAD') return void res.end()
  for (let at = first; at <= last; ) {
    at += piece.length
    if (!res.write(piece)) await once(res, 'drain', { signal })
    if (at <= last) piece = await pieceAt(view, path, at, last, signal)
  }
  res.end()
}

async function pieceAt(
  view: RepoView,
  path: string,
  offset: number,
  last: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const length = Math.min(PIECE_BYTES, last - offset + 1)
  if (length <= 0) return new Uint8Array(0)
  const piece = await view.read(path, { offset, length }, { signal })
  if (piece?.length !== length) throw new EdgeError('NOT_FOUND', `this node does not keep ${path}`)
  return piece
}

/** `timestamp.json` is the one file that changes under its name. */
function fieldsOf(path: string): string[] {
  const type = path.endsWith('.json') ? 'application/json' : 'application/octet-stream'
  const lasting = path !== 'metadata/timestamp.json'
  // biome-ignore format: a field and its value on each line
  return [
    'Content-Type', type,
    'X-Content-Type-Options', 'nosniff',
    'Access-Control-Allow-Origin', '*',
    'Cache-Control', lasting ? 'public, max-age=31536000, immutable' : 'no-cache',
  ]
}
