/**
 * The process that decodes pictures, and nothing else: whatever a hostile file does to the decoder,
 * it does it here, and the parent kills it. One job at a time; source bytes in, encoded bytes out.
 */
import sharp from 'sharp'
import type { Rendition } from './rendition.ts'

export interface RenderJob {
  readonly source: Uint8Array
  readonly rendition: Rendition
  readonly pixelsMax: number
}

export type RenderAnswer = { readonly bytes: Uint8Array } | { readonly error: string }

sharp.cache(false)
sharp.concurrency(1)

process.on('message', (job: RenderJob) => {
  void render(job).then(answer => process.send?.(answer))
})
process.on('disconnect', () => process.exit(0))

async function render({ source, rendition, pixelsMax }: RenderJob): Promise<RenderAnswer> {
  const { width, quality, format } = rendition
  try {
    const picture = sharp(source, { limitInputPixels: pixelsMax, failOn: 'error', pages: 1 })
      .rotate() // as EXIF says, since the metadata is dropped
      .resize({ width, withoutEnlargement: true })
    const encoded =
      format === 'avif'
        ? picture.avif({ quality, effort: 2 }) // effort 4 takes ten times as long
        : format === 'webp'
          ? picture.webp({ quality })
          : format === 'png'
            ? picture.png({ quality, palette: true })
            : picture.jpeg({ quality, mozjpeg: true })
    return { bytes: await encoded.toBuffer() }
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) }
  }
}
