/**
 * Which rendition of a picture a client is given: pure. A rendition never replaces the original,
 * which keeps its own URL and digest; it is asked for (`?w=`, `?q=`, `?format=`) and gets a strong
 * ETag of its own.
 */
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'

export type RenditionFormat = 'avif' | 'webp' | 'jpeg' | 'png'

export interface Rendition {
  /** Pixels; a step of the ladder, never wider than the original. */
  readonly width: number
  readonly quality: number
  readonly format: RenditionFormat
}

/** Changes whenever the same parameters would give other bytes. */
export const ENCODER_VERSION = 'sharp-0.35.5-1'
/** Widths are rounded up to these, so that a few renditions serve every screen. */
export const WIDTHS = [160, 320, 480, 640, 960, 1280, 1920, 2560] as const
const QUALITIES = [30, 45, 60, 75, 90] as const
const SOURCES = new Set(['image/jpeg', 'image/png', 'image/webp', 'image/avif', 'image/tiff'])
const FORMATS = new Set<string>(['avif', 'webp', 'jpeg', 'png'])
const DEFAULT_QUALITY = 60
/** With `Save-Data: on`, or on a poor link or battery. */
const SAVING_QUALITY = 30

export interface RenditionRequest {
  readonly query: URLSearchParams
  readonly mediaType: string
  readonly accept: string | undefined
  readonly saveData: boolean
}

/** Whether the query asks for a rendition at all. */
export function asksForRendition(query: URLSearchParams): boolean {
  return query.has('w') || query.has('q') || query.has('format')
}

/**
 * @returns undefined when the item is no picture that can be rendered: answer the original.
 * @throws EdgeError `REQUEST_INVALID` for parameters out of range.
 */
export function parseRendition({
  query,
  mediaType,
  accept,
  saveData,
}: RenditionRequest): Rendition | undefined {
  if (!SOURCES.has(mediaType)) return undefined
  const width = stepOf(WIDTHS, integerOf(query, 'w', 1, 16_384) ?? WIDTHS.at(-1) ?? 0)
  const asked = integerOf(query, 'q', 1, 100) ?? DEFAULT_QUALITY
  const quality = stepOf(QUALITIES, saveData ? Math.min(asked, SAVING_QUALITY) : asked)
  return { width, quality, format: formatOf(query.get('format'), accept, mediaType) }
}

/** Names the rendition; the same for the same bytes. */
export function renditionKey(source: Sha256, { width, quality, format }: Rendition): Sha256 {
  return sha256Of(`${ENCODER_VERSION} ${source} w${width} q${quality} ${format}`)
}

function formatOf(asked: string | null, accept: string | undefined, mediaType: string): RenditionFormat {
  if (asked && asked !== 'auto') {
    if (!FORMATS.has(asked)) {
      throw new EdgeError('REQUEST_INVALID', 'format: avif, webp, jpeg, png or auto is needed')
    }
    return asked as RenditionFormat
  }
  if (accept?.includes('image/avif')) return 'avif'
  if (accept?.includes('image/webp')) return 'webp'
  return mediaType === 'image/png' ? 'png' : 'jpeg'
}

function integerOf(query: URLSearchParams, name: string, min: number, max: number): number | undefined {
  const text = query.get(name)
  if (text === null) return undefined
  const value = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= min && value <= max)) {
    throw new EdgeError('REQUEST_INVALID', `${name}: a whole number from ${min} to ${max} is needed`)
  }
  return value
}

function stepOf(steps: readonly number[], value: number): number {
  return steps.find(step => step >= value) ?? steps.at(-1) ?? value
}
