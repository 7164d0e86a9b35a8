import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { EdgeError } from '../../manifests/errors.ts'
import type { FillEvent } from '../../warmers/fill-once.ts'
import type { NodeConfig } from '../config.ts'
import { runUp, type RunningNode } from './up.ts'

/** A node that fetches one file of its upstream in each fill, and stops when there is nothing more to do. */
function openStage() {
  const stop = new AbortController()
  const lines: Record<string, unknown>[] = []
  const configs: NodeConfig[] = []
  const versions: unknown[] = []
  let stopped = 0
  const node: RunningNode = {
    url: 'http://127.0.0.1:1/',
    async *fill(): AsyncGenerator<FillEvent> {
      const response = await fetch(new URL('metadata/timestamp.json', configs.at(-1)!.upstream[0]))
      const { signed } = (await response.json()) as { signed: { version: number } }
      versions.push(signed.version)
      yield { type: 'activated', dataset: 'health/hands-and-water', revision: 1 }
      const wire = { down: 10, up: 1, requests: 1 }
      yield { type: 'done', complete: true, contentBytes: 20, wire, fallbacks: 0, seconds: 0.1 }
    },
    async [Symbol.asyncDispose]() {
      const response = await fetch(configs.at(-1)!.upstream[0]!)
      stopped = response.status // the origin is still there: it stops after us
    },
  }
  return {
    stop,
    configs,
    versions,
    lines,
    node,
    stopped: () => stopped,
    context: {
      startNode: async (config: NodeConfig) => {
        configs.push(config)
        return node
      },
      signal: stop.signal,
      print: (line: string) => {
        const said = JSON.parse(line) as Record<string, unknown>
        lines.push(said)
        if (said['event'] === 'ready') stop.abort()
      },
    },
  }
}

const folder = () => mkdtempDisposable(join(tmpdir(), 'towerlight-up-'))

it('publishes, fills, publishes the update, fills, is ready, and stops in reverse order', async () => {
  await using data = await folder()
  const stage = openStage()
  await runUp({ json: true, port: '0', data: data.path }, { ...stage.context, env: {}, cwd: data.path })
  expect(stage.lines.map(({ event, what }) => what ?? event)).toEqual([
    'first fill',
    'update',
    'ready',
    'stopping',
  ])
  expect(stage.configs[0]).toMatchObject({
    port: 0,
    root: join(data.path, 'samples', 'keys', 'root.json'),
    redisUrl: join(data.path, 'redis', 'redis.sock'),
    logLevel: 'warn',
  })
  const [first, second] = stage.versions as [number, number]
  expect(second).toBeGreaterThan(first)
  expect(stage.stopped()).toBe(404)
  await expect(fetch(stage.configs[0]!.upstream[0]!)).rejects.toThrow()
})

it('has nothing to show the second time, and goes on with what is there', async () => {
  await using data = await folder()
  const first = openStage()
  await runUp({ json: true, data: data.path }, { ...first.context, env: {}, cwd: data.path })
  const second = openStage()
  await runUp({ json: true, data: data.path }, { ...second.context, env: {}, cwd: data.path })
  expect(second.lines.map(({ event, what }) => what ?? event)).toEqual(['fill', 'ready', 'stopping'])
  expect(second.versions).toEqual(first.versions.slice(-1))
})

it('is a tower for an upstream of yours, with your Redis, and serves although filling fails', async () => {
  await using data = await folder()
  const stage = openStage()
  const node: RunningNode = {
    ...stage.node,
    // oxlint-disable-next-line require-yield -- it fails before there is anything to tell
    async *fill() {
      throw new EdgeError('UPSTREAM_UNREACHABLE', 'no route')
    },
    async [Symbol.asyncDispose]() {},
  }
  const env = {
    TOWER_UPSTREAM: 'http://origin.invalid/',
    REDIS_URL: 'redis://127.0.0.1:1',
    TOWER_LOG_LEVEL: 'error',
  }
  const startNode = async (config: NodeConfig) => {
    stage.configs.push(config)
    return node
  }
  await runUp({ json: true, data: data.path }, { ...stage.context, startNode, env, cwd: data.path })
  expect(stage.lines.map(({ event }) => event)).toEqual(['failed', 'ready', 'stopping'])
  expect(stage.configs[0]).toMatchObject({
    upstream: ['http://origin.invalid/'],
    redisUrl: 'redis://127.0.0.1:1',
    logLevel: 'error',
  })
})

it('stops in the middle of a fill', async () => {
  await using data = await folder()
  const stage = openStage()
  const node: RunningNode = {
    ...stage.node,
    async *fill({ signal }) {
      yield { type: 'activated', dataset: 'a/b', revision: 1 }
      stage.stop.abort()
      signal.throwIfAborted()
    },
  }
  const startNode = async (config: NodeConfig) => {
    stage.configs.push(config)
    return node
  }
  await runUp({ json: true, data: data.path }, { ...stage.context, startNode, env: {}, cwd: data.path })
  expect(stage.lines.map(({ event }) => event)).toEqual(['stopping'])
})
