import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { extentOf } from '../manifests/chunk-rule.ts'
import { codecOf, type Cid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { ChunkRule } from '../manifests/extent.ts'
import { packPath } from '../manifests/manifest.ts'
import { openPackDirectory } from '../manifests/pack.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import { writtenFrames } from '../manifests/publish/frame-writer.ts'
import { writePacks } from '../manifests/publish/pack-writer.ts'
import { openHttpUpstream } from './http-upstream.ts'
import { planFill, type Source, type Want } from './plan-fill.ts'
import { runBatch, type BatchStore } from './run-batch.ts'
import { packSource } from './sources.ts'
import { openStagedRanges } from './staged-ranges.ts'
import { folderFiles, serve, staticFiles, temporaryFolder, type Handler } from './testing.ts'
import { FREE, type Upstream, type WireRecord } from './upstream.ts'

const signal = new AbortController().signal

/** Keeps what is right, in memory. */
function memoryStore(): BatchStore & { readonly kept: Map<Cid, Uint8Array> } {
  const kept = new Map<Cid, Uint8Array>()
  return {
    kept,
    has: cid => kept.has(cid),
    async admitExtent(cid: Cid, bytes: Uint8Array, rule: ChunkRule) {
      if (extentOf(bytes, rule, codecOf(cid) === 'raw').extent.cid !== cid)
        throw new EdgeError('CHUNK_CORRUPT', cid)
      kept.set(cid, Buffer.from(bytes))
    },
    async readRange(cid, offset, length) {
      const bytes = kept.get(cid)
      if (!bytes) throw new EdgeError('CHUNK_ABSENT', cid)
      return Buffer.from(bytes.subarray(offset, offset + length))
    },
  }
}

/** Items of several sizes in one pack, served by `around`, and the plan for all of them. */
async function world(
  around: (honest: Handler) => Handler = honest => honest,
  deltas: (wants: readonly Want[]) => Source[] = () => [],
) {
  const stack = new AsyncDisposableStack()
  const folder = stack.use(await temporaryFolder())
  const items = [3_000_000, 1_200_000, 200_000, 5000, 4000, 17, 0].map(size => randomBytes(size))
  const extents = items.map(bytes => ({ bytes, ...extentOf(bytes, 'fastcdc-v1', bytes.length < 10_000) }))
  const frames = writtenFrames(
    (async function* () {
      for (const { extent, node, bytes } of extents)
        yield { cid: extent.cid, bytes, ...(node ? { node: node.bytes } : {}) }
    })(),
    { level: 3, isUpdate: false },
    async () => undefined,
  )
  const storage = folderStorage(folder.path)
  const [pack] = await writePacks(frames, { storage, nodes: [], level: 3 })
  const { offset, length } = { offset: pack!.directory.offset, length: pack!.directory.size }
  const directory = await openPackDirectory(
    (await storage.read(packPath(pack!.sha256), { offset, length }))!,
    pack!.directory,
  )
  const source = packSource(packPath(pack!.sha256), pack!.size, directory)
  const server = stack.use(await serve(around(staticFiles(folderFiles(folder.path)))))
  const records: WireRecord[] = []
  const open = (url: URL) =>
    stack.use(
      openHttpUpstream(url, { onWire: record => records.push(record), stall: { bytesMin: 1000, ms: 2000 } }),
    )
  const staged = stack.use(await openStagedRanges(`${folder.path}/staged`))
  const store = memoryStore()
  const wants = extents.map(
    ({ extent }, order): Want => ({
      cid: extent.cid,
      sizeBytes: extent.sizeBytes,
      rule: 'fastcdc-v1',
      priority: 1,
      step: 0,
      order,
      why: `item ${order}`,
    }),
  )
  const plan = () =>
    planFill({
      dataset: 'health/who',
      revision: 1,
      wants: wants.filter(({ cid }) => !store.has(cid)),
      sources: [...deltas(wants), source],
      holds: cid => store.has(cid),
      staged: path => staged.spans(path),
      cost: FREE,
      batchBytes: 4e6,
      requestBytes: 262_144,
    })
  return {
    server,
    store,
    staged,
    records,
    plan,
    wants,
    extents,
    open,
    upstream: open(server.url),
    path: source.path,
    packBytes: pack!.size,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

async function runAll(at: Awaited<ReturnType<typeof world>>, upstreams: readonly Upstream[]) {
  const results = []
  for (const batch of at.plan().batches)
    results.push(await runBatch(batch, { upstreams, staged: at.staged, store: at.store }, { signal }))
  return results
}

function expectAll(at: Awaited<ReturnType<typeof world>>) {
  for (const { extent, bytes } of at.extents)
    expect(Buffer.from(at.store.kept.get(extent.cid)!).equals(bytes)).toBe(true)
}

/** Answers as `evil` does while it lasts. */
const evilFor =
  (times: number, evil: Handler) =>
  (honest: Handler): Handler =>
  (request, response) =>
    times-- > 0 ? evil(request, response) : honest(request, response)

describe('a batch', () => {
  it('brings what it planned, by as many bytes, and leaves nothing staged', async () => {
    await using at = await world()
    const planned = at.plan()
    await runAll(at, [at.upstream])
    expectAll(at)
    expect(at.staged.sizeBytes).toBe(0)
    expect(at.server.requests).toHaveLength(planned.wire.requests)
    expect(at.plan().batches).toEqual([])
  })

  it('run again costs nothing', async () => {
    await using at = await world()
    const { batches } = at.plan()
    await runAll(at, [at.upstream])
    const requests = at.server.requests.length
    for (const batch of batches)
      await runBatch(batch, { upstreams: [at.upstream], staged: at.staged, store: at.store }, { signal })
    expect(at.server.requests).toHaveLength(requests)
  })

  it('stopped in the middle goes on where it was, with other batches too', async () => {
    await using at = await world()
    const [batch] = at.plan().batches
    const stop = new AbortController()
    let received = 0
    const tools = {
      upstreams: [at.upstream],
      staged: at.staged,
      store: at.store,
      onProgress: ({ wireBytes }: { wireBytes: number }) =>
        void ((received += wireBytes) > 700_000 && stop.abort(new Error('window closed'))),
    }
    await expect(runBatch(batch!, tools, { signal: stop.signal })).rejects.toThrow('window closed')
    expect(at.staged.sizeBytes).toBeGreaterThanOrEqual(700_000)
    const before = at.upstream.wire.bytesDown
    const left = at.plan().wire.down
    expect(left).toBeLessThan(at.packBytes - 700_000)
    await runAll(at, [at.upstream])
    expectAll(at)
    expect(at.upstream.wire.bytesDown - before).toBeLessThan(left + 20_000)
  })

  it.each([
    [
      'a cut in every answer, a bit further each time',
      (() => {
        let cut = 0
        return (honest: Handler): Handler =>
          (request, response) => {
            if (cut++ % 2 === 0) setImmediate(() => response.socket?.destroySoon())
            return honest(request, response)
          }
      })(),
    ],
    ['two 503s', evilFor(2, (_, response) => void response.writeHead(503).end())],
    ['two silences', evilFor(2, () => undefined)],
  ])('survives %s', async (_, around) => {
    await using at = await world(around)
    const other = at.open(at.server.url)
    await runAll(at, [at.upstream, other])
    expectAll(at)
  })

  it('takes a file once from a server without ranges', async () => {
    await using at = await world(honest => (request, response) => {
      delete request.headers.range
      return honest(request, response)
    })
    await runAll(at, [at.upstream])
    expectAll(at)
    expect(at.upstream.ranges).toBe(false)
    expect(at.upstream.wire.bytesDown).toBeLessThan(1.5 * at.packBytes)
  })

  it('does not store wrong bytes, and takes the right ones from the next upstream', async () => {
    await using at = await world()
    await using liar = await serve(staticFiles(async () => randomBytes(at.packBytes)))
    await runAll(at, [at.open(liar.url), at.upstream])
    expectAll(at)
  })

  it('gives up when everybody lies, having stored nothing wrong', async () => {
    await using at = await world()
    await using liar = await serve(staticFiles(async () => randomBytes(at.packBytes)))
    await expect(runAll(at, [at.open(liar.url), at.open(liar.url)])).rejects.toMatchObject({
      code: 'UPSTREAM_LIED',
    })
    expect(
      [...at.store.kept.values()].every(bytes => at.extents.some(extent => extent.bytes.equals(bytes))),
    ).toBe(true)
  })

  it('asks once more when bytes kept from an earlier time are wrong', async () => {
    await using at = await world()
    {
      await using part = await at.staged.append(at.path, 8)
      await part.write(Buffer.alloc(500_000)) // zeros, as after a power cut
    }
    await runAll(at, [at.upstream])
    expectAll(at)
  })

  it('names what its patches did not yield', async () => {
    const broken = (wants: readonly Want[]): Source[] => [
      {
        kind: 'delta',
        path: 'deltas/x.delta',
        fileBytes: 10,
        bundleOf: cid =>
          cid === wants[0]!.cid ? { index: 0, span: { offset: 0, length: 0 }, bases: [] } : undefined,
        async *extentsOf(_index, _stored, cids) {
          for (const cid of cids) yield { cid, bytes: Buffer.from('wrong') }
        },
      },
    ]
    await using at = await world(undefined, broken)
    const results = await runAll(at, [at.upstream])
    expect(results.flatMap(({ fallbacks }) => fallbacks)).toMatchObject([{ want: { why: 'item 0' } }])
    expect(at.store.kept.size).toBe(at.wants.length - 1)
  })
})
