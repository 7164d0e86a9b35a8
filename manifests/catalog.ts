/**
 * The list of a dataset's items: JSON lines sorted by path (docs/formats.md). It is an item too;
 * its chunks are pages of whole lines, so each page can be verified and parsed on its own.
 *
 * What a page says is signed, but by a publisher who may be careless or worse: parsing is strict
 * where a reader relies on it, and every failure is `CATALOG_INVALID`.
 */
import { codecOf, parseCid, rawCidOf, type Cid } from './cid.ts'
import { isSha256, type Sha256 } from './digest.ts'
import { EdgeError } from './errors.ts'
import { comparePaths, isItemPath, parseItemPath } from './item-path.ts'
import { ByteWriter } from './varint.ts'

export { cutCatalogPages } from './catalog-page.ts'

export interface CatalogEntry {
  readonly path: string
  readonly sizeBytes: number
  readonly sha256: Sha256
  /** Raw when the item is at most one chunk, otherwise a dag-pb node. */
  readonly root: Cid
  readonly mediaType: string
  /** The manifest's priority when absent. */
  readonly priority?: 0 | 1 | 2 | 3
  readonly title?: string
}

export const LINE_BYTES_MAX = 32 * 1024
const TITLE_LENGTH_MAX = 1000
/** Printable ASCII only: it becomes a header. */
const MEDIA_TYPE =
  /^[A-Za-z0-9!#$&^_.+-]{1,64}\/[A-Za-z0-9!#$&^_.+-]{1,64}(?:; ?[A-Za-z0-9_-]{1,32}=[A-Za-z0-9_.-]{1,64}){0,4}$/
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * A whole catalog.
 *
 * @param entries in any order.
 * @throws EdgeError `CATALOG_INVALID` (two entries with one path, a value out of bounds), `PATH_INVALID`
 */
export function encodeCatalog(entries: readonly CatalogEntry[]): Uint8Array {
  return encodeSortedCatalog(entries.toSorted((left, right) => comparePaths(left.path, right.path)))
}

/** The same of entries that are in order already, each looked at once. */
export function encodeSortedCatalog(entries: Iterable<CatalogEntry>): Uint8Array {
  const out = new ByteWriter()
  let last: string | undefined
  for (const entry of entries) {
    if (last === entry.path) throw invalid(`two items are called ${JSON.stringify(entry.path)}`)
    if (last !== undefined && comparePaths(last, entry.path) > 0)
      throw invalid(`${JSON.stringify(entry.path)} is out of order`)
    last = entry.path
    out.bytes(lineOf(entry))
  }
  return Buffer.from(out.done())
}

/**
 * The entries of one page, or of any run of whole pages, in order.
 *
 * @throws EdgeError `CATALOG_INVALID`
 */
export function parsePage(bytes: Uint8Array): CatalogEntry[] {
  if (bytes.length > 0 && bytes.at(-1) !== 0x0a) throw invalid('a page ends inside a line')
  const entries: CatalogEntry[] = []
  let last: string | undefined
  for (let from = 0; from < bytes.length; ) {
    const to = bytes.indexOf(0x0a, from)
    const entry = parseLine(bytes.subarray(from, to))
    if (last !== undefined && comparePaths(last, entry.path) >= 0)
      throw invalid(`${JSON.stringify(entry.path)} is out of order`)
    last = entry.path
    entries.push(entry)
    from = to + 1
  }
  return entries
}

function lineOf(entry: CatalogEntry): Buffer {
  const { path, sizeBytes, sha256, root, mediaType, priority, title } = entry
  parseItemPath(path)
  const line = Buffer.from(
    `${JSON.stringify({
      path,
      size: sizeBytes,
      sha256,
      ...(codecOf(root) !== 'raw' && { root }),
      type: mediaType,
      ...(priority !== undefined && { class: priority }),
      ...(title !== undefined && { title }),
    })}\n`,
  )
  parseLine(line.subarray(0, -1))
  return line
}

function parseLine(bytes: Uint8Array): CatalogEntry {
  if (bytes.length >= LINE_BYTES_MAX) throw invalid('a line of more than 32 KiB')
  const line = parseJson(bytes)
  const { path, size, sha256, root, type, class: priority, title } = line
  if (!isItemPath(path)) throw invalid(`not an item path: ${shown(path)}`)
  const wrong = (what: string) => invalid(`${JSON.stringify(path)}: ${what}`)
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw wrong('its size is not a whole number')
  if (!isSha256(sha256)) throw wrong('its sha256 is not one')
  if (typeof type !== 'string' || !MEDIA_TYPE.test(type)) throw wrong('its media type is not one')
  if (priority !== undefined && !isPriority(priority)) throw wrong('its class is not 0 to 3')
  if (title !== undefined && !isTitle(title)) throw wrong('its title is not a short text')
  return {
    path,
    sizeBytes: size,
    sha256,
    root: root === undefined ? rawCidOf(sha256) : parseRoot(root, wrong),
    mediaType: type,
    ...(priority !== undefined && { priority }),
    ...(title !== undefined && { title }),
  }
}

function parseJson(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(bytes))
  } catch (cause) {
    throw new EdgeError('CATALOG_INVALID', 'a line is not JSON in UTF-8', { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('a line is not an object')
  return value as Record<string, unknown>
}

function parseRoot(root: unknown, wrong: (what: string) => EdgeError): Cid {
  try {
    const cid = parseCid(String(root))
    if (codecOf(cid) === 'dag-pb') return cid
  } catch {
    // said below
  }
  throw wrong('its root is not the CID of a dag-pb node')
}

function isPriority(value: unknown): value is 0 | 1 | 2 | 3 {
  return value === 0 || value === 1 || value === 2 || value === 3
}

function isTitle(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.length <= TITLE_LENGTH_MAX &&
    value.isWellFormed() &&
    !/\p{Cc}/u.test(value)
  )
}

function invalid(what: string): EdgeError {
  return new EdgeError('CATALOG_INVALID', what)
}

function shown(value: unknown): string {
  return value === undefined ? 'none' : JSON.stringify(value).slice(0, 300)
}
