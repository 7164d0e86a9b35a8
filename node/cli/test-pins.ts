/**
 * For tests: an origin whose dataset is to be pinned, real Kubo and MinIO, and nodes in this process.
 */
import { mkdtempDisposable, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { type KuboServer, startKubo, startMinio, type TestServer } from '../../pinning/testing/servers.ts'
import { openOrigin, type Files } from '../../warmers/test-world.ts'
import { bytesOf } from '../store/testing.ts'
import { loadConfig, type NodeConfig } from '../config.ts'
import { type RunningNode, startNode } from '../main.ts'

export const DATASET = 'health/kept'
export const signal = new AbortController().signal

export interface PinWorld extends AsyncDisposable {
  readonly files: ReadonlyMap<string, Buffer>
  readonly repository: string
  readonly root: string
  kubo: KuboServer
  minio: TestServer
  publish(files: ReadonlyMap<string, Uint8Array>): Promise<void>
  /** @param targets which of them the node knows. */
  config(data: string, settings?: Readonly<Record<string, unknown>>): Promise<NodeConfig>
  start(data: string, settings?: Readonly<Record<string, unknown>>): Promise<RunningNode>
  folder(): Promise<string>
}

/** Small, chunk-sized, of several chunks, of several extents; two that are the same. */
export function itemsToKeep(): Map<string, Buffer> {
  const items = new Map<string, Buffer>()
  for (let n = 0; n < 12; n++) items.set(`small/${n}.txt`, bytesOf(`small ${n}`, 300 + 2500 * n))
  for (let n = 0; n < 5; n++) items.set(`middle/${n}.bin`, bytesOf(`middle ${n}`, 40_000 + 45_000 * n))
  items.set('large/film.mp4', bytesOf('film', 9_000_000))
  items.set('large/copy.mp4', items.get('large/film.mp4')!)
  items.set('large/book.pdf', bytesOf('book', 1_500_000))
  items.set('empty', Buffer.alloc(0))
  return items
}

export async function openPinWorld(files: ReadonlyMap<string, Buffer> = itemsToKeep()): Promise<PinWorld> {
  await using stack = new AsyncDisposableStack()
  const origin = stack.use(await openOrigin())
  const { path: folder } = stack.use(await mkdtempDisposable(join(tmpdir(), 'towerlight-pins-')))
  const root = join(folder, 'root.json')
  await writeFile(root, origin.root)
  const pin = { ipfs: true, s3: true }
  await origin.publish(DATASET, Object.fromEntries(files) as Files, { pin, priority: 0 })
  const [kubo, minio] = await Promise.all([startKubo(), startMinio(6)])
  let folders = 0
  const world: PinWorld = {
    files,
    repository: origin.folder,
    root,
    kubo,
    minio,
    async publish(changed) {
      await origin.publish(DATASET, Object.fromEntries(changed) as Files)
    },
    async config(data, settings = {}) {
      const { config } = await loadConfig({
        env: {},
        cwd: data,
        options: { data, port: 0, root, refreshSeconds: 1_000_000, reserveBytes: 1024 ** 2, ...settings },
      })
      return config
    },
    async start(data, settings) {
      return await startNode(await world.config(data, settings), pino({ level: 'silent' }))
    },
    async folder() {
      return (await mkdtempDisposable(join(folder, `node-${folders++}-`))).path
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([world.kubo[Symbol.asyncDispose](), world.minio[Symbol.asyncDispose]()])
      await kept.disposeAsync()
    },
  }
  const kept = stack.move()
  return world
}

export function upstreamOf({ repository }: PinWorld) {
  return { upstream: [pathToFileURL(`${repository}/`).href] }
}

export async function fill(node: RunningNode): Promise<void> {
  for await (const event of node.fill({ signal })) {
    if (event.type === 'failed') throw new Error(event.message)
  }
  await node.owner.library.settled()
}

/** Every item over HTTP: paths that came wrong, and paths that did not come. */
export async function readAll(
  { url }: Pick<RunningNode, 'url'>,
  files: ReadonlyMap<string, Buffer>,
): Promise<{ wrong: string[]; refused: string[] }> {
  const wrong: string[] = []
  const refused: string[] = []
  for (const [path, bytes] of files) {
    const response = await fetch(new URL(`data/${DATASET}/${path}`, url)).catch(() => undefined)
    const body = Buffer.from((await response?.arrayBuffer().catch(() => undefined)) ?? new ArrayBuffer())
    if (response?.status !== 200 || (body.length === 0 && bytes.length > 0))
      refused.push(`${path} ${response?.status}`)
    else if (!body.equals(bytes)) wrong.push(path)
  }
  return { wrong, refused }
}

/** Until the node says so; polls, since targets have no better signal. */
export async function untilPinned(node: RunningNode, pins: number, withinMs = 30_000): Promise<void> {
  const before = performance.now()
  const isKept = () =>
    node.owner.pins!.report().every(({ state, pins: counts }) => {
      const [only, ...others] = counts
      return state === 'up' && others.length === 0 && only?.status === 'pinned' && only.pins === pins
    })
  while (!isKept()) {
    if (performance.now() - before > withinMs) throw new Error(JSON.stringify(node.owner.pins!.report()))
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}
