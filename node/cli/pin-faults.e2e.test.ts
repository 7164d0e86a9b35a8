import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { haveServer, suspend } from '../../pinning/testing/servers.ts'
import type { RunningNode } from '../main.ts'
import { fill, openPinWorld, type PinWorld, readAll, untilPinned, upstreamOf } from './test-pins.ts'

/** A hung server is noticed by its first call; a returned one has its pins again within this. */
const RETURN_MS = 30_000

describe.runIf(haveServer('ipfs') && haveServer('minio'))('pin targets that fail', () => {
  let world: PinWorld
  let node: RunningNode
  const pins = 21

  beforeAll(async () => {
    world = await openPinWorld()
    const targets = { ipfsApi: [world.kubo.url], s3Url: world.minio.url }
    node = await world.start(await world.folder(), { ...targets, ...upstreamOf(world) })
    await fill(node)
    await untilPinned(node, pins, 60_000)
  }, 120_000)
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  const stateOf = (kind: 'ipfs' | 's3') =>
    node.owner.pins!.report().find(report => report.kind === kind)!.state
  const untilDown = async (kind: 'ipfs' | 's3') => {
    while (stateOf(kind) !== 'down') {
      node.owner.pins!.wake()
      await new Promise(resolve => setTimeout(resolve, 100)) // polling: down is the absence of an answer
    }
  }
  const allServed = async () => expect(await readAll(node, world.files)).toEqual({ wrong: [], refused: [] })

  it('killed and started again: serving goes on, and pins are as they were', async () => {
    world.kubo.process.kill('SIGKILL')
    world.minio.process.kill('SIGKILL')
    await Promise.all([untilDown('ipfs'), untilDown('s3')])
    await allServed()
    world.kubo = await world.kubo.restart()
    world.minio = await world.minio.restart()
    await untilPinned(node, pins, RETURN_MS)
  }, 90_000)

  it('hung: serving goes on, and they are back after they go on', async () => {
    for (const server of [world.kubo, world.minio]) await suspend(server)
    try {
      await untilDown('ipfs')
      await allServed()
    } finally {
      for (const { process } of [world.kubo, world.minio]) process.kill('SIGCONT')
    }
    await untilPinned(node, pins, RETURN_MS)
  }, 90_000)

  it('what was unpinned or deleted behind our back is found and put back', async () => {
    const film = node.owner.library.open('health/kept', 'large/film.mp4').root
    const before = node.owner.pins!.report().map(({ lost }) => lost)
    await world.kubo.run('pin', 'rm', film)
    for (let drive = 1; drive <= 6; drive++) {
      await rm(join(world.minio.folder, `drive${drive}`, 'towerlight'), { recursive: true, force: true })
    }
    world.minio = await world.minio.restart()
    const isFound = () => node.owner.pins!.report().every(({ lost }, at) => lost > before[at]!)
    for (const until = performance.now() + RETURN_MS; !isFound() && performance.now() < until; ) {
      node.owner.pins!.wake()
      await new Promise(resolve => setTimeout(resolve, 100)) // polling: rounds have no better signal here
    }
    expect(isFound()).toBe(true)
    expect((await world.kubo.run('pin', 'ls', '--type=recursive', '--quiet')).toString()).toContain(film)
    await untilPinned(node, pins, RETURN_MS)
    for await (const proof of node.owner.pins!.verify({ signal: AbortSignal.timeout(RETURN_MS) })) {
      expect(proof.failed).toBe(0)
    }
  }, 90_000)

  it('two of six drives lost: everything is proven all the same', async () => {
    for (const drive of [2, 5]) {
      await rm(join(world.minio.folder, `drive${drive}`), { recursive: true, force: true })
    }
    const totals = new Map<string, number>()
    for await (const { target, failed, bytesRead } of node.owner.pins!.verify({
      signal: AbortSignal.timeout(RETURN_MS),
    })) {
      expect(failed).toBe(0)
      totals.set(target, bytesRead)
    }
    expect(totals.get('s3')).toBeGreaterThan(11_000_000)
  }, 60_000)
})
