/**
 * `?w=&q=&format=`: smaller versions of a picture, made from its verified bytes.
 *
 * A rendition is another representation with a strong entity tag and digest of its own; the original
 * keeps its URL without the query. It comes whole: no ranges. Formats follow `Accept`, quality
 * `Save-Data`, so caches are told (`Vary`).
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import type { OpenItem } from '../library.ts'
import { type Rendition, asksForRendition, parseRendition } from '../renditions/rendition.ts'
import type { Picture, Rendered } from '../renditions/renditions.ts'
import { evaluate } from './conditional.ts'
import { digestField } from './digest-fields.ts'
import { type ItemHeaders, disposition } from './item-headers.ts'
import { readWhole } from './whole-item.ts'

/** It is read into memory whole. */
const PICTURE_BYTES_MAX = 32 * 1024 * 1024

export interface RenditionSource {
  /**
   * Verified at each call.
   * @returns undefined when the original should be sent instead.
   * @throws EdgeError `OVERLOADED`, `REQUEST_INVALID`, and what reading throws.
   */
  get(picture: Picture, rendition: Rendition, options: Abortable): Promise<Rendered | undefined>
}

/**
 * @returns undefined when the query asks for none, or the item is no picture: answer the original.
 * @throws EdgeError `REQUEST_INVALID`
 */
export function renditionOf(req: IncomingMessage, item: OpenItem, query: string): Rendition | undefined {
  const parameters = new URLSearchParams(query)
  if (!asksForRendition(parameters)) return undefined
  const rendition = parseRendition({
    query: parameters,
    mediaType: item.mediaType.split(';', 1)[0]!.trim(),
    accept: req.headers.accept,
    saveData: req.headers['save-data'] === 'on',
  })
  if (rendition && item.sizeBytes > PICTURE_BYTES_MAX) {
    throw new EdgeError('REQUEST_INVALID', `a picture of ${item.sizeBytes} bytes is not rendered`)
  }
  return rendition
}

/** @returns status and length of the body. */
export function sendRendition(
  req: IncomingMessage,
  res: ServerResponse,
  item: OpenItem,
  fields: readonly string[],
  rendered: Rendered,
  validators: Pick<ItemHeaders, 'lastModifiedMs'>,
): { status: number; bodyBytes: number } {
  const etag = `"sha256-${rendered.sha256}"`
  const { headers } = req
  const verdict = evaluate(
    {
      ifMatch: headers['if-match'],
      ifNoneMatch: headers['if-none-match'],
      ifModifiedSince: headers['if-modified-since'],
      ifUnmodifiedSince: headers['if-unmodified-since'],
    },
    { etag, lastModifiedMs: validators.lastModifiedMs },
  )
  const { length } = rendered.bytes
  const name = `${item.path.replace(/\.[^./]*$/, '')}.${rendered.mediaType.slice('image/'.length)}`
  const own = replaced(fields, {
    ETag: etag,
    'Content-Type': rendered.mediaType,
    'Content-Length': String(length),
    'Repr-Digest': digestField(rendered.sha256),
    'Accept-Ranges': 'none',
    'Content-Disposition': new URLSearchParams(req.url?.split('?')[1]).has('download')
      ? disposition(name)
      : undefined,
    Vary: 'Accept, Save-Data',
  })
  if (verdict === 'failed') {
    res.writeHead(412, ['ETag', etag, 'Content-Length', '0']).end()
    return { status: 412, bodyBytes: 0 }
  }
  if (verdict === 'not-modified') {
    res.writeHead(304, replaced(own, { 'Content-Length': undefined, 'Content-Type': undefined })).end()
    return { status: 304, bodyBytes: 0 }
  }
  res.writeHead(200, own)
  res.end(req.method === 'HEAD' ? undefined : rendered.bytes)
  return { status: 200, bodyBytes: length }
}

/** The whole item, verified, from wherever it can be had. */
export function pictureOf(item: OpenItem): Picture {
  return {
    sha256: item.sha256,
    read: options => readWhole(item, options),
  }
}

function replaced(fields: readonly string[], others: Readonly<Record<string, string | undefined>>): string[] {
  const kept = fields.filter((_, i) => !(fields[i - (i % 2)]! in others))
  for (const [name, value] of Object.entries(others)) if (value !== undefined) kept.push(name, value)
  return kept
}
