/** An upstream with a certificate of a CA of its own: who is trusted, and every byte beneath TLS counted. */
import { execFileSync, spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytesOf } from '../node/store/testing.ts'
import { openBullQueue } from './bull-queue.ts'
import { openEmbeddedRedis } from '../node/embedded-redis.ts'
import { planOnce } from './fill-once.ts'
import { folderFiles, staticFiles, temporaryFolder } from './testing.ts'
import { fillMirror } from './mirror.ts'
import { planMirror } from './mirror-plan.ts'
import { openNode, openOrigin, type TestOrigin } from './test-world.ts'

const MIB = 1024 * 1024
const film = bytesOf('film', 3 * MIB)

interface Certificate {
  readonly ca: string
  readonly key: string
  readonly cert: string
}

/** @param name what the certificate is for. */
async function certificateFor(name: string, folder: string): Promise<Certificate> {
  const run = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await writeFile(join(folder, 'san'), `subjectAltName=${name}`)
  run('req', '-x509', ...ec, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Towers')
  run('req', ...ec, '-keyout', 'key.pem', '-out', 'csr.pem', '-subj', '/CN=origin')
  const ca = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'san']
  run('x509', '-req', '-in', 'csr.pem', ...ca, '-out', 'cert.pem')
  const read = (file: string) => readFile(join(folder, file), 'utf8')
  return { ca: await read('ca.pem'), key: await read('key.pem'), cert: await read('cert.pem') }
}

/** The origin over TLS; `wire` is what its TCP sockets carried. */
async function serveTls(origin: TestOrigin, { key, cert }: Certificate) {
  const handle = staticFiles(folderFiles(origin.folder))
  const server = createServer({ key, cert }, (request, response) => void handle(request, response))
  server.keepAliveTimeout = 60_000
  const sockets = new Set<Socket>()
  server.on('connection', socket => sockets.add(socket))
  server.on('tlsClientError', () => undefined)
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  const sum = (of: (socket: Socket) => number) =>
    [...sockets].reduce((total, socket) => total + of(socket), 0)
  return {
    url: new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}/`),
    wire: () => ({ down: sum(socket => socket.bytesWritten), up: sum(socket => socket.bytesRead) }),
    connections: () => sockets.size,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise(done => server.close(done))
    },
  }
}

const here = spawnSync('openssl', ['version']).status === 0
if (!here) console.warn('NOT RUN: https upstreams: openssl is needed to make certificates')

describe.runIf(here)('an upstream by https', () => {
  const stack = new AsyncDisposableStack()
  let origin: TestOrigin
  let right: Certificate
  let wrongName: Certificate

  beforeAll(async () => {
    origin = stack.use(await openOrigin())
    right = await certificateFor('IP:127.0.0.1', stack.use(await temporaryFolder()).path)
    wrongName = await certificateFor('DNS:elsewhere.example', stack.use(await temporaryFolder()).path)
    await origin.publish('media/films', { 'film.mp4': film })
  })
  afterAll(() => stack.disposeAsync())

  it('is used when its CA is trusted; plan, accounts and what TCP carried agree', async () => {
    await using server = await serveTls(origin, right)
    await using node = await openNode(origin.root)
    const options = { ca: right.ca, connectionsMax: 4 }
    const plan = await planOnce(node.request([node.upstream(server.url, options)]))
    const before = server.wire()
    const upstream = node.upstream(server.url, options)
    node.records.length = 0
    const done = (await node.fill([upstream])).at(-1)
    if (done?.type !== 'done') throw new Error('it did not end')
    expect(done.complete).toBe(true)
    const spent = (of: 'bytesDown' | 'bytesUp') =>
      node.records.reduce((total, record) => total + record[of], 0)
    await expect.poll(() => server.wire().up - before.up).toBe(spent('bytesUp'))
    expect(server.wire().down - before.down).toBe(spent('bytesDown'))
    expect(spent('bytesDown')).toBe(done.wire.down)
    const [planned, measured] = [plan.wire.down + plan.wire.up, done.wire.down + done.wire.up]
    expect(Math.abs(measured - planned) / planned).toBeLessThan(0.01)
    expect((await node.items('media/films'))['film.mp4']!.equals(film)).toBe(true)
  })

  it('costs an update what the plan says, handshakes included', async () => {
    await using server = await serveTls(origin, right)
    await using node = await openNode(origin.root)
    const options = { ca: right.ca, connectionsMax: 4 }
    await node.fill([node.upstream(server.url, options)])
    const edited = Buffer.from(film)
    for (const at of [100_000, 1_500_000, 2_900_000]) bytesOf(`edit ${at}`, 20_000).copy(edited, at)
    await origin.publish('media/films', { 'film.mp4': edited })
    const plan = await planOnce(node.request([node.upstream(server.url, options)]))
    const done = (await node.fill([node.upstream(server.url, options)])).at(-1)
    if (done?.type !== 'done') throw new Error('it did not end')
    const [planned, measured] = [plan.wire.down + plan.wire.up, done.wire.down + done.wire.up]
    expect(measured).toBeLessThan(90_000)
    expect(Math.abs(measured - planned) / planned).toBeLessThan(0.01)
  })

  it('costs a hub what its plan says', async () => {
    await using server = await serveTls(origin, right)
    await using node = await openNode(origin.root)
    const folder = `${node.folder}/repository`
    const request = () => node.request([node.upstream(server.url, { ca: right.ca, connectionsMax: 4 })])
    const plan = await planMirror(request(), { folder })
    const done = (await Array.fromAsync(fillMirror(request(), { folder, reserveBytes: 0 }))).at(-1)
    if (done?.type !== 'done') throw new Error('it did not end')
    const [planned, measured] = [plan.wire.down + plan.wire.up, done.wire.down + done.wire.up]
    expect(Math.abs(measured - planned) / planned).toBeLessThan(0.002)
  })

  it.each<[string, () => Certificate, { readonly trusted?: boolean; readonly ca?: boolean }]>([
    ['whose CA nobody trusts', () => right, {}],
    ['with a certificate for another name', () => wrongName, { trusted: true }],
    ['of another CA with the same name', () => right, { ca: true }],
  ])('%s gets nothing of us and is not believed', async (_, certificate, trust) => {
    await using server = await serveTls(origin, certificate())
    await using node = await openNode(origin.root)
    const ca = trust.trusted ? certificate().ca : trust.ca ? wrongName.ca : undefined
    const upstream = node.upstream(server.url, ca === undefined ? {} : { ca })
    await expect(node.fill([upstream])).rejects.toMatchObject({ code: 'UPSTREAM_UNREACHABLE' })
    expect(node.releases.releases()).toEqual([])
  })

  it('is read by worker processes, too', async () => {
    await using server = await serveTls(origin, right)
    await using node = await openNode(origin.root)
    await using folder = await temporaryFolder()
    await using redis = await openEmbeddedRedis(folder.path)
    const workers = { processes: 1, concurrency: 4 }
    await using queue = openBullQueue({ redisUrl: redis.redisUrl, prefix: 'tower-a', workers })
    await expect.poll(() => queue.workers?.ready, { timeout: 15_000 }).toBe(1)
    const upstream = node.upstream(server.url, { ca: right.ca, connectionsMax: 4 })
    const done = (await node.fill([upstream], { queue })).at(-1)
    expect(done).toMatchObject({ type: 'done', complete: true })
    await expect.poll(() => server.wire().down).toBe(upstream.wire.bytesDown)
    await node.items('media/films')
  })
})
