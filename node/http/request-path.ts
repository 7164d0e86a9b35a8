/**
 * From the request target to what is asked for, strictly. Pure.
 *
 * Every segment is decoded exactly once. What could mean another place after decoding, to us or to
 * somebody in front of us, is refused with 400 and never normalised: empty, `.` and `..` segments,
 * encoded slashes, backslashes, control characters, broken escapes, overlong names.
 */
import { isDatasetName } from '../../manifests/dataset-name.ts'
import { type Sha256, isSha256 } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import { parseItemPath } from '../../manifests/item-path.ts'

/** 4096 bytes of path, every one of them escaped, and a dataset's name. */
const TARGET_CHARACTERS_MAX = 12_600

export type ItemTarget =
  | { readonly kind: 'path'; readonly dataset: string; readonly path: string; readonly query: string }
  | { readonly kind: 'digest'; readonly sha256: Sha256; readonly query: string }

/**
 * @param url the target as received, beginning with `/data/` or `/sha256/`.
 * @returns undefined for a listing (`/data/`, `/data/<dataset>/`, a folder): no item is meant.
 * @throws EdgeError `PATH_INVALID`
 */
export function parseItemTarget(url: string): ItemTarget | undefined {
  const mark = url.indexOf('?')
  const pathname = mark < 0 ? url : url.slice(0, mark)
  const query = mark < 0 ? '' : url.slice(mark + 1)

  if (pathname.startsWith('/sha256/')) {
    const sha256 = pathname.slice('/sha256/'.length)
    if (!isSha256(sha256)) throw invalid('/sha256/ takes 64 lower-case hex digits')
    return { kind: 'digest', sha256, query }
  }
  const { dataset, path, folder } = parseDataPath(pathname)
  if (dataset === undefined || folder) return undefined
  return { kind: 'path', dataset, path, query }
}

export interface DataPath {
  /** The first segment, where there is one: what publishers are delegated by. */
  readonly scope: string
  /** Undefined with fewer than two segments. */
  readonly dataset: string | undefined
  /** Within the dataset, without a slash at the end. */
  readonly path: string
  /** Not an item: it ends in a slash, or names a dataset or less. */
  readonly folder: boolean
}

/**
 * @param pathname beginning with `/data/`, without the query.
 * @throws EdgeError `PATH_INVALID`
 */
export function parseDataPath(pathname: string): DataPath {
  const segments = parseSegments(pathname.slice('/data/'.length))
  const [scope = '', name, ...rest] = segments
  const dataset = name === undefined ? undefined : `${scope}/${name}`
  if (scope !== '' && !isDatasetName(dataset ?? `${scope}/x`)) {
    throw invalid('a dataset is named by two segments of a-z, 0-9, dot, _ and -')
  }
  // Control characters, backslashes, overlong names: refused by the rule that publishing has, too.
  const path = rest.length === 0 ? '' : parseItemPath(rest.join('/'))
  return { scope, dataset, path, folder: rest.length === 0 || pathname.endsWith('/') }
}

/**
 * Decodes each segment, once; one slash at the end is allowed.
 * @throws EdgeError `PATH_INVALID`
 */
export function parseSegments(path: string): string[] {
  if (path.length > TARGET_CHARACTERS_MAX) throw invalid('too long')
  if (path === '') return []
  return (path.endsWith('/') ? path.slice(0, -1) : path).split('/').map(parseSegment)
}

/** A path for use within a URL: each segment escaped. */
export function encodePath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/')
}

function parseSegment(raw: string): string {
  const segment = raw.includes('%') ? decoded(raw) : raw
  if (segment === '' || segment === '.' || segment === '..')
    throw invalid('empty, "." and ".." segments are refused')
  if (segment.includes('/')) throw invalid('an escaped slash is refused')
  return segment
}

function decoded(raw: string): string {
  try {
    return decodeURIComponent(raw)
  } catch (cause) {
    throw new EdgeError('PATH_INVALID', 'the path has a broken escape', { cause })
  }
}

function invalid(why: string): EdgeError {
  return new EdgeError('PATH_INVALID', `not a path that we serve: ${why}`)
}
