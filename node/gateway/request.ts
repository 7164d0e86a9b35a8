/**
 * Parses what is asked of `/ipfs/…`: pure. Answers in the words of the specifications at
 * https://specs.ipfs.tech/http-gateways/ (path gateway, trustless gateway).
 */
import type { ByteRange } from '../../manifests/extent.ts'
import { type Cid, parseCid } from '../../manifests/cid.ts'
import { EdgeError } from '../../manifests/errors.ts'

export type GatewayFormat = 'raw' | 'car' | 'file'
export type DagScope = 'block' | 'entity' | 'all'

export interface GatewayRequest {
  readonly cid: Cid
  readonly format: GatewayFormat
  readonly scope: DagScope
  /** Of the entity, for a CAR that need not hold all of it; see `boundedTo`. */
  readonly entityBytes: ByteRange | undefined
  /** `dups=y`: blocks that occur twice are sent twice. */
  readonly duplicates: boolean
  readonly filename: string | undefined
  readonly download: boolean
}

/** The empty identity CID, which clients fetch to find out whether this is a gateway. */
export const PROBE_CID = 'bafkqaaa'
export const RAW_TYPE = 'application/vnd.ipld.raw'
export const CAR_TYPE = 'application/vnd.ipld.car'

/**
 * @param url path and query, as they came.
 * @throws EdgeError `REQUEST_INVALID` for CIDs, formats and parameters that are not supported,
 * `NOT_FOUND` for paths below an item: our roots are files.
 */
export function parseGatewayRequest(url: string, accept: string | undefined): GatewayRequest {
  const { pathname, searchParams: query } = new URL(url, 'http://gateway.invalid')
  const [, , name = '', ...below] = pathname.split('/')
  if (below.some(segment => segment !== '')) {
    throw new EdgeError('NOT_FOUND', 'this root is a file: there is no path below it')
  }
  const { type, parameters } = acceptedType(accept)
  const format = formatOf(query.get('format'), type)
  return {
    cid: parseCid(decodeURIComponent(name)),
    format,
    scope: oneOf('dag-scope', query.get('dag-scope') ?? 'all', ['block', 'entity', 'all']),
    entityBytes: parseEntityBytes(query.get('entity-bytes')),
    duplicates: oneOf('dups', query.get('car-dups') ?? parameters.get('dups') ?? 'n', ['y', 'n']) === 'y',
    filename: query.get('filename') ?? undefined,
    download: query.get('download') === 'true',
  }
}

/** `?format=` wins over `Accept`, as the specification wants. */
function formatOf(asked: string | null, acceptType: GatewayFormat): GatewayFormat {
  if (asked === null) return acceptType
  if (asked === 'raw' || asked === 'car') return asked
  throw new EdgeError('REQUEST_INVALID', `format ${asked} is not supported: raw and car are`)
}

function acceptedType(accept = ''): { type: GatewayFormat; parameters: ReadonlyMap<string, string> } {
  for (const option of accept.split(',')) {
    const [type = '', ...rest] = option.split(';').map(part => part.trim())
    const parameters = new Map(
      rest.map(part => part.split('=', 2).map(text => text.trim()) as [string, string]),
    )
    if (type === RAW_TYPE) return { type: 'raw', parameters }
    if (type !== CAR_TYPE) continue
    const version = parameters.get('version') ?? '1'
    const order = parameters.get('order') ?? 'dfs'
    if (version !== '1' || (order !== 'dfs' && order !== 'unk')) {
      throw new EdgeError('REQUEST_INVALID', 'archives are CAR version 1, in depth-first order')
    }
    return { type: 'car', parameters }
  }
  return { type: 'file', parameters: new Map() }
}

/** `from:to`, both inclusive; `to` may be `*`. Below zero they count from the end. */
function parseEntityBytes(text: string | null): ByteRange | undefined {
  if (text === null) return undefined
  const [, first, last] = /^(-?\d{1,15}):(-?\d{1,15}|\*)$/.exec(text) ?? []
  if (first === undefined || last === undefined) {
    throw new EdgeError('REQUEST_INVALID', 'entity-bytes: FROM:TO is needed')
  }
  const range = { first: Number(first), last: last === '*' ? Number.MAX_SAFE_INTEGER : Number(last) }
  if (range.last < range.first && range.last < 0 === range.first < 0) throw endsTooEarly()
  return range
}

/** What is asked of an entity of so many bytes; the last byte may lie past the end. @throws EdgeError `REQUEST_INVALID` */
export function boundedTo({ first, last }: ByteRange, sizeBytes: number): ByteRange {
  const fromStart = (offset: number) => (offset < 0 ? Math.max(0, sizeBytes + offset) : offset)
  const range = { first: fromStart(first), last: fromStart(last) }
  if (range.last < range.first) throw endsTooEarly()
  return range
}

function endsTooEarly(): EdgeError {
  return new EdgeError('REQUEST_INVALID', 'entity-bytes: ends before it begins')
}

function oneOf<const T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find(one => one === value)
  if (!found) throw new EdgeError('REQUEST_INVALID', `${name}: one of ${allowed.join(', ')} is needed`)
  return found
}
