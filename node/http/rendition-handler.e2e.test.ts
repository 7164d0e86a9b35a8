import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../manifests/digest.ts'
import { RENDER_LIMITS, Renderer } from '../renditions/renderer.ts'
import { Renditions } from '../renditions/renditions.ts'
import { type TestNode, startNode } from './test-client.ts'
import { TestLibrary } from './test-library.ts'

const BASE = '/data/education/physics'

describe('renditions over HTTP', () => {
  const stack = new AsyncDisposableStack()
  const library = new TestLibrary()
  let node: TestNode
  let original: Buffer
  let isAllowed = true

  beforeAll(async () => {
    const pixels = {
      create: {
        width: 1_000,
        height: 600,
        channels: 3,
        background: '#2a6',
        noise: { type: 'gaussian', mean: 128, sigma: 30 },
      },
    } as const
    original = await sharp(pixels).jpeg({ quality: 95 }).toBuffer()
    library.add('picture.jpg', original, { mediaType: 'image/jpeg' })
    library.add('broken.jpg', original.subarray(0, 2_000), { mediaType: 'image/jpeg' })
    library.add('text.txt', Buffer.from('text'))
    const folder = await mkdtemp(join(tmpdir(), 'tower-renditions-'))
    stack.defer(() => rm(folder, { recursive: true, force: true }))
    const renderer = stack.use(new Renderer(RENDER_LIMITS))
    const renditions = await Renditions.open({
      folder,
      bytesMax: 10_000_000,
      renderer,
      isAllowed: () => isAllowed,
    })
    node = stack.use(await startNode({ library, renditions }))
  })
  afterAll(() => stack.disposeAsync())

  it('are smaller, and have an identity of their own', async () => {
    const { status, headers, body } = await node.ask(`${BASE}/picture.jpg?w=320`, {
      headers: { accept: 'image/webp,*/*' },
    })
    expect([status, headers['content-type'], headers.vary]).toEqual([200, 'image/webp', 'Accept, Save-Data'])
    expect((await sharp(body).metadata()).width).toBe(320)
    expect(body.length).toBeLessThan(original.length)
    expect(headers.etag).toBe(`"sha256-${sha256Of(body)}"`)
    expect(headers['repr-digest']).toBe(`sha-256=:${Buffer.from(sha256Of(body), 'hex').toString('base64')}:`)
    const again = await node.ask(`${BASE}/picture.jpg?w=320`, {
      headers: { accept: 'image/webp,*/*', 'if-none-match': headers.etag! },
    })
    expect([again.status, again.body.length]).toEqual([304, 0])
    const head = await node.ask(`${BASE}/picture.jpg?w=320`, {
      method: 'HEAD',
      headers: { accept: 'image/webp,*/*' },
    })
    expect([head.status, head.headers['content-length'], head.headers.etag]).toEqual([
      200,
      String(body.length),
      headers.etag,
    ])
  })

  it('are not made when the battery is low: what is kept is sent, else the original', async () => {
    const kept = `${BASE}/picture.jpg?w=640`
    const before = await node.ask(kept)
    isAllowed = false
    expect((await node.ask(kept)).body.equals(before.body)).toBe(true)
    const other = await node.ask(`${BASE}/picture.jpg?w=1000`)
    isAllowed = true
    expect([other.status, other.body.equals(original)]).toEqual([200, true])
    expect(other.headers.etag).toBe(`"sha256-${sha256Of(original)}"`)
  })

  it('leave the original as it is', async () => {
    expect((await node.ask(`${BASE}/picture.jpg`)).body.equals(original)).toBe(true)
    expect((await node.ask(`${BASE}/text.txt?w=100`)).body.toString()).toBe('text')
  })

  it('of odd parameters and hostile pictures are refused, and the node goes on', async () => {
    expect((await node.ask(`${BASE}/picture.jpg?w=0`)).status).toBe(400)
    const broken = await node.ask(`${BASE}/broken.jpg?w=100`)
    expect(broken.status).toBeGreaterThanOrEqual(400)
    expect(broken.headers['content-type']).toBe('application/problem+json')
    expect((await node.ask('/livez')).status).toBe(200)
  })

  it('of what is not here are 503', async () => {
    library
      .add('absent.jpg', Buffer.concat([original, Buffer.from('x')]), { mediaType: 'image/jpeg' })
      .faults.absent.push({ first: 0, last: 10 })
    const { status, headers } = await node.ask(`${BASE}/absent.jpg?w=100`)
    expect([status, headers['retry-after']]).toEqual([503, '120'])
  })
})
