/**
 * `/ipfs/<cid>`: an IPFS trustless gateway (raw blocks and CAR archives, which clients verify), and
 * plain files beside it. Serves what is here; it fetches nothing from anywhere.
 *
 * Formats: specs.ipfs.tech/http-gateways/trustless-gateway. Not supported, and refused with 400:
 * IPNS, directories, dag-json and dag-cbor, CAR version 2.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { carOf } from '../../manifests/car.ts'
import { codecOf } from '../../manifests/cid.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import type { Abortable, ByteRange, DagNode } from '../../manifests/extent.ts'
import { problemOf, sendProblem } from '../http/problem.ts'
import type { Route } from '../http/server.ts'
import {
  boundedTo,
  CAR_TYPE,
  type GatewayRequest,
  parseGatewayRequest,
  PROBE_CID,
  RAW_TYPE,
} from './request.ts'
import { type BlockSource, sizeOfRoot, walkBlocks } from './walk.ts'

const IMMUTABLE = 'public, max-age=29030400, immutable'

export interface GatewayParts {
  readonly blocks: BlockSource
  /** Items that must no longer be served: 410. */
  isDenied(cid: GatewayRequest['cid']): boolean
  /** The media type of the item with this root, when a catalog names one. */
  mediaTypeOf(cid: GatewayRequest['cid']): string | undefined
}

export function ipfsGateway(parts: GatewayParts): Route {
  return {
    prefix: '/ipfs/',
    async handle(req, res) {
      const left = new AbortController()
      res.once('close', () => left.abort())
      try {
        await answer(parts, req, res, { signal: left.signal })
      } catch (error) {
        if (left.signal.aborted) return
        if (res.headersSent)
          res.destroy() // never ended short: the client must see that it is cut
        else sendProblem(res, problemOf(absentIsNotFound(error), req.url))
      }
    },
  }
}

/** A gateway that does not fetch says 404 for what it lacks, not "try again". */
function absentIsNotFound(error: unknown): unknown {
  return isEdgeError(error, 'CHUNK_ABSENT') ? new EdgeError('NOT_FOUND', error.message) : error
}

async function answer(
  parts: GatewayParts,
  req: IncomingMessage,
  res: ServerResponse,
  options: Abortable,
): Promise<void> {
  allowAnyOrigin(res)
  if (req.method === 'OPTIONS') return void res.writeHead(204, { Allow: 'GET, HEAD, OPTIONS' }).end()
  if (req.method !== 'GET' && req.method !== 'HEAD') {
    res.setHeader('Allow', 'GET, HEAD, OPTIONS')
    throw new EdgeError('METHOD_NOT_ALLOWED', 'GET, HEAD and OPTIONS are answered here')
  }
  const url = req.url ?? ''
  if (url.split('?', 1)[0] === `/ipfs/${PROBE_CID}`) return probe(req, res)

  const asked = parseGatewayRequest(url, req.headers.accept)
  if (parts.isDenied(asked.cid))
    throw new EdgeError('ITEM_DENIED', `${asked.cid} was withdrawn by its publisher`)
  const etag = etagOf(asked)
  res.setHeader('Etag', etag)
  res.setHeader('Cache-Control', IMMUTABLE)
  res.setHeader('X-Ipfs-Path', `/ipfs/${asked.cid}`)
  res.setHeader('X-Ipfs-Roots', asked.cid)
  res.setHeader('X-Content-Type-Options', 'nosniff')
  res.setHeader('Vary', 'Accept')
  if (namesEtag(req.headers['if-none-match'], etag)) return void res.writeHead(304).end()

  if (asked.format === 'raw') await answerRaw(parts, asked, req, res, options)
  else if (asked.format === 'car') await answerCar(parts, asked, req, res, options)
  else await answerFile(parts, asked, req, res, options)
}

function probe(req: IncomingMessage, res: ServerResponse): void {
  res.writeHead(200, {
    'Content-Type': RAW_TYPE,
    'Content-Length': 0,
    'Cache-Control': IMMUTABLE,
    Etag: `"${PROBE_CID}.raw"`,
  })
  res.end(req.method === 'HEAD' ? undefined : Buffer.alloc(0))
}

async function answerRaw(
  parts: GatewayParts,
  { cid, filename }: GatewayRequest,
  req: IncomingMessage,
  res: ServerResponse,
  options: Abortable,
): Promise<void> {
  const bytes = await parts.blocks.block(cid, options)
  if (!bytes) throw new EdgeError('NOT_FOUND', `block ${cid} is not here`)
  res.writeHead(200, {
    'Content-Type': RAW_TYPE,
    'Content-Length': bytes.length,
    'Content-Disposition': disposition('attachment', filename ?? `${cid}.bin`),
  })
  res.end(req.method === 'HEAD' ? undefined : bytes)
}

async function answerCar(
  parts: GatewayParts,
  asked: GatewayRequest,
  req: IncomingMessage,
  res: ServerResponse,
  options: Abortable,
): Promise<void> {
  const { cid, scope, entityBytes, duplicates, filename } = asked
  const { sizeBytes } = await sizeOfRoot(parts.blocks, cid, options) // 404 before the head, not a cut body after it
  const range = entityBytes && boundedTo(entityBytes, sizeBytes)
  res.setHeader('Accept-Ranges', 'none')
  res.writeHead(200, {
    'Content-Type': `${CAR_TYPE}; version=1; order=dfs; dups=${duplicates ? 'y' : 'n'}`,
    'Content-Disposition': disposition('attachment', filename ?? `${cid}.car`),
  })
  if (req.method === 'HEAD') return void res.end()
  const walk = { once: !duplicates, rootOnly: scope === 'block', ...(range && { range }) }
  await send(res, carOf([cid], walkBlocks(parts.blocks, cid, walk, options)), options)
}

async function answerFile(
  parts: GatewayParts,
  asked: GatewayRequest,
  req: IncomingMessage,
  res: ServerResponse,
  options: Abortable,
): Promise<void> {
  const { cid, filename, download } = asked
  const { sizeBytes } = await sizeOfRoot(parts.blocks, cid, options)
  const range = rangeOf(req.headers.range, sizeBytes)
  const { first, last } = range ?? { first: 0, last: sizeBytes - 1 }
  res.setHeader('Accept-Ranges', 'bytes')
  if (range) res.setHeader('Content-Range', `bytes ${first}-${last}/${sizeBytes}`)
  if (filename !== undefined || download) {
    res.setHeader('Content-Disposition', disposition(download ? 'attachment' : 'inline', filename ?? cid))
  }
  res.writeHead(range ? 206 : 200, {
    'Content-Type': parts.mediaTypeOf(cid) ?? 'application/octet-stream',
    'Content-Security-Policy': 'sandbox', // a page published by anybody has no powers over this origin
    'Content-Length': last - first + 1,
  })
  if (req.method === 'HEAD' || sizeBytes === 0) return void res.end()
  await send(
    res,
    contentOf(walkBlocks(parts.blocks, cid, { range: { first, last }, once: false }, options), {
      first,
      last,
    }),
    options,
  )
}

/** The bytes of the leaves that lie in `range`. */
async function* contentOf(
  blocks: AsyncIterable<DagNode & { readonly offset: number }>,
  { first, last }: ByteRange,
): AsyncGenerator<Uint8Array> {
  for await (const { cid, bytes, offset } of blocks) {
    if (codecOf(cid) !== 'raw') continue
    yield bytes.subarray(Math.max(0, first - offset), last + 1 - offset)
  }
}

async function send(
  res: ServerResponse,
  pieces: AsyncIterable<Uint8Array>,
  { signal }: Abortable,
): Promise<void> {
  for await (const piece of pieces) {
    if (!res.write(piece)) await once(res, 'drain', { signal })
  }
  res.end()
}

/**
 * One range, as a verifying client asks for it; several, or none that we understand: the whole.
 * @throws EdgeError `RANGE_OUTSIDE_ITEM`
 */
function rangeOf(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const [, from, to] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? []
  if (from === undefined || to === undefined || (from === '' && to === '')) return undefined
  const first = from === '' ? Math.max(0, sizeBytes - Number(to)) : Number(from)
  const last = from === '' || to === '' ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1)
  if (first >= sizeBytes) throw new EdgeError('RANGE_OUTSIDE_ITEM', `${first} of ${sizeBytes}`)
  return first <= last ? { first, last } : undefined
}

function etagOf({ cid, format, scope, entityBytes, duplicates }: GatewayRequest): string {
  if (format === 'raw') return `"${cid}.raw"`
  if (format === 'file') return `"${cid}"`
  const bytes = entityBytes ? `.${entityBytes.first}-${entityBytes.last}` : ''
  return `W/"${cid}.car.${scope}${bytes}.${duplicates ? 'y' : 'n'}"`
}

function namesEtag(header: string | undefined, etag: string): boolean {
  if (!header) return false
  const opaque = (text: string) => text.trim().replace(/^W\//, '')
  return header.trim() === '*' || header.split(',').some(one => opaque(one) === opaque(etag))
}

function allowAnyOrigin(res: ServerResponse): void {
  res.setHeader('Access-Control-Allow-Origin', '*')
  res.setHeader('Access-Control-Allow-Methods', 'GET, HEAD, OPTIONS')
  res.setHeader('Access-Control-Allow-Headers', 'Content-Type, Range, User-Agent, X-Requested-With')
  res.setHeader(
    'Access-Control-Expose-Headers',
    'Content-Length, Content-Range, X-Chunked-Output, X-Ipfs-Path, X-Ipfs-Roots, X-Stream-Output',
  )
}

/** RFC 6266: an ASCII name for old clients, the true one in UTF-8. */
function disposition(kind: 'attachment' | 'inline', filename: string): string {
  const ascii = filename.replace(/[^\x20-\x7e]|["\\%]/g, '_')
  return `${kind}; filename="${ascii}"; filename*=UTF-8''${encodeURIComponent(filename)}`
}
