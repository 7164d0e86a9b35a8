import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { haveServer } from '../../pinning/testing/servers.ts'
import { extentsUnder } from '../dag-walk.ts'
import type { RunningNode } from '../main.ts'
import type { ExplainReport } from './owner-methods.ts'
import { DAMAGES, damageAndRead } from './test-pin-damage.ts'
import { DATASET, fill, openPinWorld, type PinWorld, signal, untilPinned, upstreamOf } from './test-pins.ts'

const ROUNDS = 9
/** Bytes in memory would hide what happened on disk. */
const NO_MEMORY = { memoryBytesMax: 0 }

describe.runIf(haveServer('ipfs') && haveServer('minio'))('a damaged store', () => {
  let world: PinWorld
  let whole: RunningNode

  beforeAll(async () => {
    world = await openPinWorld()
    const targets = { ipfsApi: [world.kubo.url], s3Url: world.minio.url }
    whole = await world.start(await world.folder(), { ...targets, ...upstreamOf(world) })
    await fill(whole)
    whole.owner.pins!.wake()
    await untilPinned(whole, 21)
  }, 90_000)
  afterAll(async () => {
    await whole?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  it.each([['s3'], ['kubo'], ['peer'], ['upstream']])(
    `heals from %s, with every byte right in ${ROUNDS} rounds`,
    async from => {
      const folder = await world.folder()
      {
        await using filling = await world.start(folder, upstreamOf(world))
        await fill(filling)
      }
      const sources = {
        s3: { s3Url: world.minio.url },
        kubo: { ipfsApi: [world.kubo.url] },
        peer: { peers: [whole.url] },
        upstream: upstreamOf(world),
      }[from]
      await using node = await world.start(folder, { ...NO_MEMORY, ...sources })
      await node.owner.library.settled()
      for (let round = 0; round < ROUNDS; round++) {
        const damage = DAMAGES[round % DAMAGES.length]!
        const { wrong, refused, read, extents } = await damageAndRead(
          node,
          world.files,
          damage,
          `${from} ${round}`,
        )
        expect({ damage, wrong, refused }).toEqual({ damage, wrong: [], refused: [] })
        expect(read, `${damage} of ${String(extents)}`).toBeGreaterThan(0)
      }
      const { healedBy } = node.owner.store.usage()
      const source = Object.keys(healedBy).find(name => name.includes(from))
      expect(source, JSON.stringify(healedBy)).toBeDefined()

      const healed = node.owner.store
        .events(1000)
        .find(({ what, why }) => what === 'healed' && why.includes(from))
      const item = [...world.files.keys()].find(path => extentsOf(node, path).includes(healed!.subject))
      const [report] = (await Array.fromAsync(
        node.control('explain', { item: `${DATASET}/${item}` }, { signal }),
      )) as ExplainReport[]
      expect(report!.events.map(({ what, why }) => `${what} ${why}`)).toContain(`healed from ${source}`)
      const metrics = await (await fetch(new URL('metrics', node.url))).text()
      expect(metrics).toContain(`source="${source}"} `)
      expect(metrics).toMatch(/tower_heals{cause="(wrong bytes|gone|too short)",source="/)
    },
    60_000,
  )

  function extentsOf(node: RunningNode, path: string): string[] {
    const { root, sizeBytes } = node.owner.library.open(DATASET, path)
    return extentsUnder(node.owner.store, root, sizeBytes).extents.map(({ cid }) => cid)
  }
})
