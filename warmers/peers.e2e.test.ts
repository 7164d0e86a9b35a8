/** A tower beside another one: what the neighbour has crosses no link. */
import { describe, expect, it } from 'vitest'
import { ipfsGateway } from '../node/gateway/ipfs-gateway.ts'
import { startNode } from '../node/http/test-client.ts'
import { bytesOf } from '../node/store/testing.ts'
import { serve, type Handler } from './testing.ts'
import { openNode, openOrigin } from './test-world.ts'

const MIB = 1024 * 1024
const FILES = {
  'film.mp4': bytesOf('film', 9 * MIB),
  ...Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`note ${n}.txt`, `${n} `.repeat(500)])),
}

async function world() {
  const stack = new AsyncDisposableStack()
  const origin = stack.use(await openOrigin())
  const server = stack.use(await origin.serve())
  await origin.publish('media/films', FILES)
  const neighbour = stack.use(await openNode(origin.root))
  const library = neighbour.releases
  const gateway = ipfsGateway({
    blocks: library,
    isDenied: root => library.isDenied(root),
    mediaTypeOf: root => library.mediaTypeOf(root),
  })
  const http = stack.use(await startNode({ library, routes: [gateway] }))
  const node = stack.use(await openNode(origin.root))
  const upstream = node.upstream(server.url)
  const peer = node.upstream(new URL(http.url))
  return {
    origin,
    server,
    neighbour,
    node,
    upstream,
    peer,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function expectAll(node: Awaited<ReturnType<typeof openNode>>): Promise<void> {
  const items = await node.items('media/films')
  for (const [path, bytes] of Object.entries(FILES))
    expect(items[path]!.equals(Buffer.from(bytes))).toBe(true)
}

describe('a neighbour', () => {
  it('gives what it has, and the link carries metadata only', async () => {
    await using at = await world()
    await at.neighbour.fill([at.neighbour.upstream(at.server.url)])
    const events = await at.node.fill([at.upstream], { peers: [at.peer] })
    expect(events.find(({ type }) => type === 'planned')).toMatchObject({ contentBytes: 0 })
    expect(events.at(-1)).toMatchObject({ type: 'done', complete: true })
    expect(at.upstream.wire.bytesDown).toBeLessThan(40_000)
    expect(at.peer.wire.bytesDown).toBeGreaterThan(9 * MIB)
    await expectAll(at.node)
  })

  it('that has nothing is asked a few times only', async () => {
    await using at = await world()
    await at.node.fill([at.upstream], { peers: [at.peer] })
    expect(at.peer.wire.requests).toBeLessThan(25)
    await expectAll(at.node)
  })

  it.each<[string, Handler]>([
    ['lies', (_, response) => void response.end('x'.repeat(100))],
    ['never ends', (_, response) => void response.writeHead(200).write('x'.repeat(9 * MIB))],
    ['is broken', (_, response) => void response.writeHead(500).end()],
    ['hangs up', request => void request.socket.destroy()],
  ])('that %s is left, and the link brings everything', async (_, answer) => {
    await using at = await world()
    await using evil = await serve(answer)
    const events = await at.node.fill([at.upstream], { peers: [at.node.upstream(evil.url)] })
    expect(events.at(-1)).toMatchObject({ type: 'done', complete: true })
    expect(evil.requests.length).toBeLessThan(15)
    await expectAll(at.node)
  })
})
