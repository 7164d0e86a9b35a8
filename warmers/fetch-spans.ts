/**
 * Brings spans of a file into the staging area, from the best upstream that has them.
 *
 * What arrives is kept as it arrives; what a cut leaves over is asked for again from where it
 * ended, of the same upstream as long as that makes progress, then of the next. Bytes are not
 * judged here: that is done by what comes out of them.
 */
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { byHealth, reportUpstream } from './breaker.ts'
import { cut, without } from './spans.ts'
import type { StagedRanges, StagedWriter } from './staged-ranges.ts'
import type { Purpose, Span, SpanOptions, Upstream } from './upstream.ts'

export interface FetchTools {
  /** Best first, at least one. */
  readonly upstreams: readonly Upstream[]
  readonly staged: StagedRanges
}

export interface FileSpans {
  readonly path: string
  readonly fileBytes: number
  /** Range requests to make; what is staged already is left out. */
  readonly requests: readonly Span[]
  readonly purpose: Purpose
  readonly urgent?: boolean
  readonly onBytes?: (bytes: number) => void
}

/** In a row, without a single byte between: then the upstream is left. */
const FRUITLESS_MAX = 2
const SKIP_BYTES_MAX = 64 * 1024

/** @throws EdgeError the last upstream's, when none gave everything. */
export async function fetchSpans(tools: FetchTools, file: FileSpans, options: Abortable): Promise<void> {
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  const results = await Promise.allSettled(
    file.requests.map(async span => {
      try {
        await fetchSpan(tools, file, span, { signal })
      } catch (error) {
        stop.abort(error)
        throw error
      }
    }),
  )
  options.signal.throwIfAborted()
  const failed = results.find(result => result.status === 'rejected')
  if (failed) throw failed.reason
}

async function fetchSpan(tools: FetchTools, file: FileSpans, span: Span, options: Abortable): Promise<void> {
  let failure: unknown = new EdgeError('UPSTREAM_UNREACHABLE', 'there is no upstream')
  for (const upstream of byHealth(tools.upstreams)) {
    for (let fruitless = 0; fruitless < FRUITLESS_MAX; ) {
      const lacking = without([span], tools.staged.spans(file.path))
      if (lacking.length === 0) return
      const before = tools.staged.sizeBytes
      const asksForRange = upstream.ranges
      try {
        if (asksForRange) await receivePieces(upstream, tools.staged, file, span, lacking, options)
        else await receiveWhole(upstream, tools.staged, file, options)
        reportUpstream(upstream, 'served')
      } catch (error) {
        options.signal.throwIfAborted()
        if (!isEdgeError(error) || error.code === 'STORE_FULL') throw error
        failure = error
        if (asksForRange && !upstream.ranges) continue
        reportUpstream(upstream, error.code === 'UPSTREAM_LIED' ? 'lied' : 'failed')
        const progress = tools.staged.sizeBytes > before
        const mayBeLuck = isEdgeError(error, 'UPSTREAM_UNREACHABLE', 'UPSTREAM_STALLED')
        fruitless = !mayBeLuck ? FRUITLESS_MAX : progress ? 0 : fruitless + 1
      }
    }
  }
  throw failure
}

/** All pieces are tried, whatever becomes of one. */
async function receivePieces(
  upstream: Upstream,
  staged: StagedRanges,
  file: FileSpans,
  request: Span,
  lacking: readonly Span[],
  options: Abortable,
): Promise<void> {
  const pieces = lacking.flatMap(span => cut(span, upstream.pieceBytes))
  const begin = (piece: Span) => (pieces.length > 1 ? piece : request)
  const results = await Promise.allSettled(
    pieces.map(piece =>
      receive(upstream, staged, file, begin(piece), piece, { ...options, skipBytesMax: SKIP_BYTES_MAX }),
    ),
  )
  const failed = results.find(result => result.status === 'rejected')
  if (failed) throw failed.reason
}

async function receive(
  upstream: Upstream,
  staged: StagedRanges,
  file: FileSpans,
  request: Span,
  lacking: Span,
  { signal, skipBytesMax = Infinity }: Abortable & Pick<SpanOptions, 'skipBytesMax'>,
): Promise<void> {
  await using stack = new AsyncDisposableStack()
  let part: StagedWriter | undefined
  // asked for at once, so that requests are made in the order in which they are wanted
  for await (const bytes of upstream.readSpan(file.path, lacking, {
    signal,
    purpose: file.purpose,
    urgent: file.urgent ?? false,
    skipBytesMax,
  })) {
    part ??= stack.use(await staged.append(file.path, lacking.offset, request.offset))
    await part.write(bytes)
    file.onBytes?.(bytes.length)
  }
}

/**
 * A server without ranges sends the file from its beginning for every request: so it is asked once
 * per file, and all that passes by is kept for whoever needs it later.
 */
async function receiveWhole(
  upstream: Upstream,
  staged: StagedRanges,
  file: FileSpans,
  options: Abortable,
): Promise<void> {
  const wholeFiles = wholeFilesOf.get(staged) ?? new Map<string, Promise<void>>()
  wholeFilesOf.set(staged, wholeFiles)
  const running = wholeFiles.get(file.path)
  if (running) return await running
  const whole = (async () => {
    const lacking = without([{ offset: 0, length: file.fileBytes }], staged.spans(file.path))
    const first = lacking[0]
    if (!first) return
    const rest = { offset: first.offset, length: file.fileBytes - first.offset }
    await receive(upstream, staged, file, rest, rest, options)
  })()
  wholeFiles.set(file.path, whole)
  try {
    await whole
  } finally {
    wholeFiles.delete(file.path)
  }
}

/** Downloads of whole files under way. */
const wholeFilesOf = new WeakMap<StagedRanges, Map<string, Promise<void>>>()
