/**
 * Failures as HTTP: one status for each of our codes, and `application/problem+json` (RFC 9457).
 *
 * The body carries `code`, which programs read, beside the standard members. A code without a
 * status does not compile.
 */
import type { ServerResponse } from 'node:http'
import { EdgeError, type EdgeErrorCode, isEdgeError } from '../../manifests/errors.ts'

export const STATUS_OF = {
  CHUNK_ABSENT: 503,
  CHUNK_CORRUPT: 503,
  DATASET_UNKNOWN: 404,
  ITEM_UNKNOWN: 404,
  ITEM_ABSENT: 503,
  ITEM_DENIED: 410,
  RANGE_OUTSIDE_ITEM: 416,
  CATALOG_INVALID: 422,
  MANIFEST_INVALID: 422,
  PACK_INVALID: 422,
  DELTA_INVALID: 422,
  DELTA_BASE_ABSENT: 409,
  PATH_INVALID: 400,
  TRUST_ROOT_ABSENT: 503,
  TRUST_SIGNATURE: 403,
  TRUST_ROLLBACK: 409,
  TRUST_EXPIRED: 409,
  TRUST_MISMATCH: 409,
  TRUST_INVALID: 422,
  TRUST_TOO_LONG: 413,
  TRUST_STATE_DAMAGED: 503,
  PUBLISH_FOLDER_UNREADABLE: 422,
  PUBLISH_FOLDER_EMPTY: 422,
  PUBLISH_FILE_CHANGED: 409,
  PUBLISH_CONFLICT: 409,
  PUBLISH_REFUSED: 403,
  KEY_ABSENT: 403,
  KEY_INVALID: 422,
  KEY_NOT_AUTHORISED: 403,
  STORE_LOCKED: 503,
  STORE_READ_ONLY: 503,
  STORE_FULL: 507,
  STORE_FORMAT: 503,
  UPSTREAM_UNREACHABLE: 502,
  UPSTREAM_REFUSED: 502,
  UPSTREAM_STALLED: 504,
  UPSTREAM_LIED: 502,
  WINDOW_CLOSED: 503,
  PIN_TARGET_DOWN: 503,
  PIN_REFUSED: 507,
  REQUEST_INVALID: 400,
  METHOD_NOT_ALLOWED: 405,
  NOT_FOUND: 404,
  NOT_AUTHORISED: 403,
  OVERLOADED: 503,
  NOT_READY: 503,
  CONFIG_INVALID: 500,
  PORT_IN_USE: 500,
  DEPENDENCY_ABSENT: 503,
  INTERNAL: 500,
} as const satisfies Record<EdgeErrorCode, number>

const TITLE_OF: Readonly<Record<number, string>> = {
  400: 'Bad request',
  403: 'Not allowed',
  404: 'Not found',
  405: 'Method not allowed',
  409: 'Conflict',
  410: 'Withdrawn',
  412: 'Precondition failed',
  413: 'Too large',
  416: 'Range not satisfiable',
  422: 'Not acceptable as it is',
  500: 'Internal error',
  502: 'Upstream failed',
  503: 'Not available now',
  504: 'Upstream timed out',
  507: 'No room',
}

export interface Problem {
  readonly status: number
  /** The members of RFC 9457 plus `code`; JSON. */
  readonly body: Buffer
}

/**
 * What a client may know of `error`. An unexpected one says nothing of its cause: the log does.
 *
 * @param instance the request's path, as the client sent it.
 */
export function problemOf(error: unknown, instance?: string): Problem {
  const known = isEdgeError(error)
  return problem(
    known ? STATUS_OF[error.code] : 500,
    known ? error.code : 'INTERNAL',
    known ? error.message : 'something went wrong inside the node; its log says what',
    instance,
  )
}

/** A problem that has no EdgeError of its own, such as 412. */
export function problem(status: number, code: string, detail: string, instance?: string): Problem {
  const members = {
    type: 'about:blank',
    title: TITLE_OF[status] ?? 'Error',
    status,
    detail,
    ...(instance === undefined ? {} : { instance: instance.slice(0, 300) }),
    code,
  }
  return { status, body: Buffer.from(`${JSON.stringify(members)}\n`) }
}

/** @param more further fields, flat: name, value, name, value. */
export function sendProblem(
  res: ServerResponse,
  { status, body }: Problem,
  more: readonly string[] = [],
): void {
  if (res.headersSent || res.destroyed) return void res.destroy()
  // biome-ignore format: a field and its value on each line
  res.writeHead(status, [
    'Content-Type', 'application/problem+json',
    'Content-Length', String(body.length),
    'Cache-Control', 'no-store',
    'X-Content-Type-Options', 'nosniff',
    'Access-Control-Allow-Origin', '*',
    'Access-Control-Expose-Headers', 'Retry-After, Cache-Status, Content-Range',
    ...more,
  ])
  res.end(res.req.method === 'HEAD' ? undefined : body)
}

/** Fields that go with some codes: when to ask again, what else is allowed. */
export function fieldsWith(error: unknown, retryAfterSeconds: number): string[] {
  if (error instanceof EdgeError && error.code === 'METHOD_NOT_ALLOWED')
    return ['Allow', 'GET, HEAD, OPTIONS']
  if (problemStatus(error) === 503) return ['Retry-After', String(Math.max(1, Math.ceil(retryAfterSeconds)))]
  return []
}

function problemStatus(error: unknown): number {
  return isEdgeError(error) ? STATUS_OF[error.code] : 500
}
