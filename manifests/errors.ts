/**
 * Every failure we expect, in one table. Programs read `code`, people read `message`, `cause` keeps
 * the original. What cannot happen is an `assert` instead.
 *
 * `retryable` says whether the same call may succeed later without anybody changing its input;
 * warmers stop retrying a job whose error is not.
 */

const CODES = {
  // content
  CHUNK_ABSENT: { retryable: true }, // catalogued but not here yet; a warmer will bring it
  CHUNK_CORRUPT: { retryable: true }, // bytes on disk or wire do not match their digest
  DATASET_UNKNOWN: { retryable: false }, // no accepted manifest has this dataset
  ITEM_UNKNOWN: { retryable: false }, // the catalog has no such path or digest
  ITEM_ABSENT: { retryable: true }, // catalogued, not (wholly) here; `Retry-After` says when
  ITEM_DENIED: { retryable: false }, // on the signed denylist, or its role lost the path: 410
  RANGE_OUTSIDE_ITEM: { retryable: false }, // RFC 9110 §15.5.17
  // formats
  CATALOG_INVALID: { retryable: false },
  MANIFEST_INVALID: { retryable: false },
  PACK_INVALID: { retryable: false },
  DELTA_INVALID: { retryable: false }, // malformed, expands past its signed size, or wrong result
  DELTA_BASE_ABSENT: { retryable: false }, // a base is not here; take full frames instead
  PATH_INVALID: { retryable: false }, // not a path we serve or publish
  // trust (TUF specification 5.3 to 5.6)
  TRUST_ROOT_ABSENT: { retryable: false }, // no trusted root yet: give one with --root
  TRUST_SIGNATURE: { retryable: false }, // below the threshold of valid signatures
  TRUST_ROLLBACK: { retryable: false }, // a version went backwards
  TRUST_EXPIRED: { retryable: true }, // freeze: the newest metadata on offer has expired
  TRUST_MISMATCH: { retryable: true }, // mix and match: hash, length or version differ
  TRUST_INVALID: { retryable: false }, // not TUF metadata
  TRUST_TOO_LONG: { retryable: false }, // endless data
  TRUST_STATE_DAMAGED: { retryable: false }, // both copies of our own state are unreadable
  // publishing
  PUBLISH_FOLDER_UNREADABLE: { retryable: false },
  PUBLISH_FOLDER_EMPTY: { retryable: false },
  PUBLISH_FILE_CHANGED: { retryable: true }, // a file changed while it was read
  PUBLISH_CONFLICT: { retryable: true }, // another release was published in between
  PUBLISH_REFUSED: { retryable: false }, // the receiver did not accept the release
  KEY_ABSENT: { retryable: false },
  KEY_INVALID: { retryable: false },
  KEY_NOT_AUTHORISED: { retryable: false }, // the key may not sign for this path
  // store
  STORE_LOCKED: { retryable: true }, // another owner process holds the store
  STORE_READ_ONLY: { retryable: false },
  STORE_FULL: { retryable: true }, // the reserve would be touched; message gives the shortfall
  STORE_FORMAT: { retryable: false }, // written by a newer version
  // upstream
  UPSTREAM_UNREACHABLE: { retryable: true },
  UPSTREAM_REFUSED: { retryable: true }, // 4xx and 5xx
  UPSTREAM_STALLED: { retryable: true }, // no byte for too long, or too few
  UPSTREAM_LIED: { retryable: true }, // wrong length, range or bytes: try the next source
  WINDOW_CLOSED: { retryable: true }, // the contact window ended, or its budget is used up
  // pins
  PIN_TARGET_DOWN: { retryable: true },
  PIN_REFUSED: { retryable: false }, // cannot fit; message gives the shortfall
  // requests
  REQUEST_INVALID: { retryable: false },
  METHOD_NOT_ALLOWED: { retryable: false },
  NOT_FOUND: { retryable: false },
  NOT_AUTHORISED: { retryable: false },
  OVERLOADED: { retryable: true }, // health miss: here, but too busy
  NOT_READY: { retryable: true },
  CONFIG_INVALID: { retryable: false },
  PORT_IN_USE: { retryable: false },
  DEPENDENCY_ABSENT: { retryable: false }, // a program we need is not installed
  INTERNAL: { retryable: false }, // a defect of ours, reported over a boundary
} as const satisfies Record<string, { retryable: boolean }>

export type EdgeErrorCode = keyof typeof CODES

export class EdgeError extends Error {
  override readonly name = 'EdgeError'
  readonly code: EdgeErrorCode

  /** @param message carries digests, paths and sizes, and what to do; never credentials. */
  constructor(code: EdgeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  get retryable(): boolean {
    return CODES[this.code].retryable
  }
}

/** Whether `error` is an EdgeError with one of `codes` (any, when none is named). */
export function isEdgeError(error: unknown, ...codes: EdgeErrorCode[]): error is EdgeError {
  return error instanceof EdgeError && (codes.length === 0 || codes.includes(error.code))
}
