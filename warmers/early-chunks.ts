/**
 * Chunks of extents that are still on their way, proven and given to whoever waits for them.
 *
 * An extent has megabytes, which take half a minute on a narrow link; its first chunk is there in
 * a second. What the chunks must be is in the extent's node, which lies beside the frames in a
 * pack and is proven by the extent's CID; what has arrived is in the staging area. Only plain
 * frames show their chunks before they are whole: films, sound, pictures, archives.
 */
import { digestOf, type Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import { isEdgeError } from '../manifests/errors.ts'
import type { Abortable, ExtentRef } from '../manifests/extent.ts'
import { parseNode } from '../manifests/unixfs.ts'
import { claimBundles } from './bundle-claims.ts'
import { fetchSpans, type FetchTools } from './fetch-spans.ts'
import type { Batch } from './plan-fill.ts'
import { plainPlaceOf } from './sources.ts'
import { joined, without } from './spans.ts'

interface Place {
  readonly path: string
  /** Where the extent begins in the file. */
  readonly offset: number
  readonly chunks: readonly ExtentRef[]
}

/** A byte that somebody waits for. */
export interface Position {
  readonly extent: Cid
  /** In the extent. */
  readonly offset: number
}

export class EarlyChunks {
  readonly #tools: FetchTools
  readonly #places = new Map<Cid, Place>()

  constructor(tools: FetchTools) {
    this.#tools = tools
  }

  /** Fetches the nodes of a batch's extents. Does without those that cannot be had. */
  async learn({ dataset, path, fileBytes, steps }: Batch, options: Abortable): Promise<void> {
    const { staged } = this.#tools
    const places = steps.flatMap(({ source, wants }) =>
      wants.flatMap(({ cid }) => {
        const place = this.#places.has(cid) ? undefined : plainPlaceOf(source, cid)
        return place ? [{ cid, ...place }] : []
      }),
    )
    if (places.length === 0) return
    const requests = joined(places.map(({ node }) => node).toSorted((a, b) => a.offset - b.offset))
    const purpose = { dataset, reason: 'index' }
    try {
      const parts = requests.map(({ offset }) => `nodes at ${offset}`)
      using _mine = await claimBundles(staged, path, parts, options)
      await fetchSpans(this.#tools, { path, fileBytes, requests, purpose, urgent: true }, options)
      for (const { cid, offset, node } of places) {
        const bytes = await staged.read(path, node)
        if (sha256Of(bytes) === digestOf(cid))
          this.#places.set(cid, { path, offset, chunks: parseNode(bytes).links })
      }
      await staged.drop(path, requests)
    } catch (error) {
      if (!isEdgeError(error) && !options.signal.aborted) throw error
    }
  }

  /** @returns proven bytes from the position to the end of its chunk; undefined while they are not here. */
  async at({ extent, offset }: Position): Promise<Buffer | undefined> {
    const place = this.#places.get(extent)
    if (!place) return undefined
    const { staged } = this.#tools
    let start = 0
    for (const { cid, sizeBytes } of place.chunks) {
      if (start + sizeBytes <= offset) {
        start += sizeBytes
        continue
      }
      const span = { offset: place.offset + start, length: sizeBytes }
      if (without([span], staged.spans(place.path)).length > 0) return undefined
      const bytes = await staged.read(place.path, span).catch(() => undefined) // used up just now
      return bytes && sha256Of(bytes) === digestOf(cid) ? bytes.subarray(offset - start) : undefined
    }
    return undefined
  }
}
