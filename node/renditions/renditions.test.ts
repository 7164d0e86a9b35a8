import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { asksForRendition, parseRendition, renditionKey } from './rendition.ts'
import { Renderer, RENDER_LIMITS } from './renderer.ts'
import { type Picture, Renditions } from './renditions.ts'

const signal = new AbortController().signal
const request = { mediaType: 'image/jpeg', accept: undefined, saveData: false }

describe('which rendition', () => {
  const parse = (query: string, more = {}) =>
    parseRendition({ ...request, ...more, query: new URLSearchParams(query) })

  it('takes steps of the ladder', () => {
    expect(parse('w=300')).toEqual({ width: 320, quality: 60, format: 'jpeg' })
    expect(parse('w=9000&q=61')).toEqual({ width: 2560, quality: 75, format: 'jpeg' })
    expect(parse('w=100', { saveData: true })).toMatchObject({ quality: 30 })
  })

  it('negotiates the format, unless one is asked for', () => {
    expect(parse('w=1', { accept: 'image/avif,image/webp,*/*' })).toMatchObject({ format: 'avif' })
    expect(parse('w=1', { accept: 'image/webp' })).toMatchObject({ format: 'webp' })
    expect(parse('w=1', { mediaType: 'image/png' })).toMatchObject({ format: 'png' })
    expect(parse('format=jpeg', { accept: 'image/avif' })).toMatchObject({ format: 'jpeg' })
  })

  it.each(['w=0', 'w=-3', 'w=1.5', 'w=99999', 'w=x', 'q=0', 'q=101', 'format=exe'])('refuses %s', query => {
    expect(() => parse(query)).toThrow(expect.objectContaining({ code: 'REQUEST_INVALID' }))
  })

  it('leaves alone what is no picture, or not asked for', () => {
    expect(parse('w=100', { mediaType: 'image/svg+xml' })).toBeUndefined()
    expect(asksForRendition(new URLSearchParams('download'))).toBe(false)
  })

  it('names each by source and parameters', () => {
    const some = ['w=100', 'w=400', 'w=100&q=90', 'w=100&format=png'].map(query => parse(query))
    const keys = some.flatMap(one =>
      one ? [renditionKey(sha256Of('a'), one), renditionKey(sha256Of('b'), one)] : [],
    )
    expect(new Set(keys).size).toBe(8)
  })
})

describe('rendering', () => {
  let renderer: Renderer
  let folder: string
  let photo: Buffer
  beforeAll(async () => {
    renderer = new Renderer({ ...RENDER_LIMITS, renderMs: 5000 })
    const noise = { type: 'gaussian', mean: 128, sigma: 40 } as const
    photo = await sharp({ create: { width: 1200, height: 800, channels: 3, background: '#888', noise } })
      .jpeg()
      .toBuffer()
  })
  afterAll(() => renderer[Symbol.asyncDispose]())
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tower-renditions-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  const openAt = (bytesMax = 10_000_000) => Renditions.open({ folder, bytesMax, renderer })
  const pictureOf = (bytes: Buffer) => {
    const picture = {
      sha256: sha256Of(bytes),
      reads: 0,
      read: () => Promise.resolve((picture.reads++, bytes)),
    }
    return picture satisfies Picture
  }
  const small = { width: 320, quality: 60, format: 'webp' } as const
  const files = async () =>
    (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))

  it.each(['avif', 'webp', 'jpeg', 'png'] as const)(
    'makes a smaller %s, once for all who ask',
    async format => {
      const picture = pictureOf(photo)
      const renditions = await openAt()
      const all = await Promise.all(
        [1, 2, 3].map(() => renditions.get(picture, { ...small, format }, { signal })),
      )
      expect(picture.reads).toBe(1)
      const [first] = all
      expect(first?.mediaType).toBe(`image/${format}`)
      expect(await sharp(first?.bytes).metadata()).toMatchObject({ width: 320, height: 213 })
      expect(first?.sha256).toBe(sha256Of(first?.bytes ?? ''))
      await renditions.get(picture, { ...small, format }, { signal })
      expect(picture.reads).toBe(1)
    },
  )

  it('never makes it wider than it is', async () => {
    const rendered = await (await openAt()).get(pictureOf(photo), { ...small, width: 2560 }, { signal })
    expect(await sharp(rendered?.bytes).metadata()).toMatchObject({ width: 1200 })
  })

  it('survives a restart, and a damaged file is made anew', async () => {
    const picture = pictureOf(photo)
    const sha256 = (await (await openAt()).get(picture, small, { signal }))?.sha256
    expect(sha256).toBeDefined()
    const again = await openAt()
    expect(await again.get(picture, small, { signal })).toMatchObject({ sha256 })
    expect(picture.reads).toBe(1)
    const [path = ''] = await files()
    const bytes = await readFile(path)
    bytes[50] = (bytes[50] ?? 0) ^ 1
    await writeFile(path, bytes)
    expect(await again.get(picture, small, { signal })).toMatchObject({ sha256 })
    expect(picture.reads).toBe(2)
  })

  it('stays within its bytes', async () => {
    const renditions = await openAt(1)
    await renditions.get(pictureOf(photo), small, { signal })
    await renditions.get(pictureOf(photo), { ...small, width: 160 }, { signal })
    await expect.poll(async () => (await files()).length).toBe(0)
  })

  it('refuses bombs, truncated and hostile pictures in bounded time, and goes on', async () => {
    const renditions = await openAt()
    const hostile = [
      pngBomb(17_000, 17_000),
      photo.subarray(0, 2000),
      Buffer.from('GIF89a nonsense'),
      Buffer.alloc(0),
    ]
    for (const bytes of hostile) {
      await expect(renditions.get(pictureOf(bytes), small, { signal })).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
      })
    }
    await renditions.get(pictureOf(photo), small, { signal })
  })

  it('kills a rendering that takes too long or too much memory', async () => {
    for (const bound of [{ renderMs: 1 }, { childBytesMax: 20_000_000 }]) {
      await using bounded = new Renderer({ ...RENDER_LIMITS, ...bound })
      await expect(bounded.render(photo, { ...small, format: 'avif' }, { signal })).rejects.toMatchObject({
        code: 'REQUEST_INVALID',
      })
    }
  })
})

/** A tiny file that says it is a huge picture. */
function pngBomb(width: number, height: number): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([1, 0], 8)
  const rows = deflateSync(Buffer.alloc(Math.ceil(width / 8 + 1) * 64))
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    pngPart('IHDR', header),
    pngPart('IDAT', rows),
    pngPart('IEND', Buffer.alloc(0)),
  ])
}

function pngPart(name: string, content: Buffer): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(content.length)
  const body = Buffer.concat([Buffer.from(name), content])
  const check = Buffer.alloc(4)
  let crc = ~0
  for (const byte of body) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  check.writeUInt32BE(~crc >>> 0)
  return Buffer.concat([length, body, check])
}
