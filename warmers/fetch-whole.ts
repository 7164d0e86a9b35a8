/**
 * A small file as a whole: metadata and manifests. Tried again when the link loses the request, and
 * on a link that loses much, several times at once: the first answer counts.
 */
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import { collect, type Upstream, type WholeOptions } from './upstream.ts'

const ATTEMPTS_MAX = 4
const ATTEMPTS_LOSSY_MAX = 12
const AT_ONCE_LOSSY = 4

/** @throws EdgeError as `Upstream.readWhole`, of the last attempt; the signal's reason. */
export async function fetchWhole(upstream: Upstream, path: string, options: WholeOptions): Promise<Buffer> {
  for (let attempt = 1; ; ) {
    const { isLossy } = upstream
    try {
      return isLossy
        ? await firstOf(AT_ONCE_LOSSY, upstream, path, options)
        : await collect(upstream.readWhole(path, options))
    } catch (error) {
      options.signal.throwIfAborted()
      attempt += isLossy ? AT_ONCE_LOSSY : 1
      const mayBeLuck =
        isEdgeError(error, 'UPSTREAM_STALLED') || (isLossy && isEdgeError(error, 'UPSTREAM_UNREACHABLE'))
      if (!mayBeLuck || attempt > (upstream.isLossy ? ATTEMPTS_LOSSY_MAX : ATTEMPTS_MAX)) throw error
    }
  }
}

async function firstOf(
  count: number,
  upstream: Upstream,
  path: string,
  options: WholeOptions,
): Promise<Buffer> {
  const won = new AbortController()
  const signal = AbortSignal.any([options.signal, won.signal])
  const attempts = Array.from({ length: count }, () =>
    collect(upstream.readWhole(path, { ...options, signal })).catch(answered),
  )
  try {
    const first = await Promise.any(attempts)
    if (first instanceof EdgeError) throw first
    return first
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error
  } finally {
    won.abort()
  }
}

/** "There is no such file" is an answer; only silence is worth waiting for another. */
function answered(error: unknown): EdgeError {
  if (isEdgeError(error) && !isEdgeError(error, 'UPSTREAM_STALLED', 'UPSTREAM_UNREACHABLE')) return error
  throw error
}
