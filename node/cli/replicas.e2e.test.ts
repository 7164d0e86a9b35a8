import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openPinService, type PinService } from '../../pinning/pin-service.ts'
import { haveServer, type KuboServer, startKubo } from '../../pinning/testing/servers.ts'
import type { RunningNode } from '../main.ts'
import { fill, openPinWorld, type PinWorld, signal, upstreamOf } from './test-pins.ts'

describe.runIf(haveServer('ipfs') && haveServer('minio'))('two Kubo hosts', () => {
  let world: PinWorld
  let second: KuboServer
  let node: RunningNode
  /** Distinct roots, and the catalog. */
  let pins: number

  beforeAll(async () => {
    ;[world, second] = await Promise.all([openPinWorld(), startKubo()])
    pins = new Set([...world.files.values()].map(bytes => bytes.toString('latin1'))).size + 1
    node = await world.start(await world.folder(), upstreamOf(world))
    await fill(node)
  }, 90_000)
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]()
    await second?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  const serviceFor = async (ipfsReplicas: string): Promise<PinService> => {
    const { store, library, trust } = node.owner
    const ipfsApi = [world.kubo.url, second.url]
    const folder = await world.folder()
    return openPinService({
      store,
      library,
      trust,
      folder,
      ipfsApi,
      ipfsReplicas,
      view: () => [],
      standInAfterMs: 0,
    })
  }
  const round = async (service: PinService) => {
    await Array.fromAsync(service.once({ signal }))
  }
  const rootsOn = async (kubo: KuboServer) => {
    const listed = (await kubo.run('pin', 'ls', '--type=recursive', '--quiet')).toString().split('\n')
    return new Set(listed.filter(cid => cid.startsWith('baf')))
  }

  it('share the pins, stand in for each other, and give back', async () => {
    await using service = await serviceFor('1')
    await round(service)
    const [here, there] = [await rootsOn(world.kubo), await rootsOn(second)]
    expect(here.union(there).size).toBe(pins)
    expect(here.intersection(there).size).toBe(0)
    expect(Math.min(here.size, there.size)).toBeGreaterThan(0)
    expect(service.replicas()).toEqual({ min: 1, max: 1, hosts: 2, under: 0 })

    second.process.kill('SIGKILL')
    await round(service) // notices
    await round(service) // stands in
    expect((await rootsOn(world.kubo)).size).toBe(pins)

    second = await second.restart()
    await round(service) // it is back
    await round(service) // and has what it is to have
    expect(await rootsOn(world.kubo)).toEqual(here)
    expect(await rootsOn(second)).toEqual(there)
  }, 60_000)

  it('keep everything twice where that is wished', async () => {
    await using service = await serviceFor('2')
    await round(service)
    expect((await rootsOn(world.kubo)).size).toBe(pins)
    expect((await rootsOn(second)).size).toBe(pins)
    const proven = await Array.fromAsync(service.verify({ signal }))
    expect(proven.filter(({ failed }) => failed > 0)).toEqual([])
  }, 60_000)

  it('a wish for more copies than hosts stops the start', async () => {
    const settings = { ipfsApi: [world.kubo.url, second.url], ipfsReplicas: '3' }
    await expect(world.start(await world.folder(), settings)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    })
  })
})
