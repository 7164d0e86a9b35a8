/**
 * Two thousand items, real and made up, in real Kubo and MinIO: what each keeps is exactly what is
 * wished, right to the last byte, also without the node, and with two of six drives gone.
 */
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { type Sha256, sha256Of } from '../../manifests/digest.ts'
import { bytesOf } from '../store/testing.ts'
import { DATASET, fill, openPinWorld, signal, untilPinned, upstreamOf } from './test-pins.ts'

const DATA = process.env['TOWERLIGHT_DATA'] ?? join(import.meta.dirname, '..', '..', '..', 'shared', 'data')
const ARCHIVES = ['chem-images/new.tar', 'cphys-text/new.tar']
const GENERATED = 1500
const AT_ONCE = 8

it('2,000 items are kept in Kubo and in S3, and proven there', async () => {
  const files = await itemsOf(DATA)
  expect(files.size).toBeGreaterThanOrEqual(2000)
  await using world = await openPinWorld(files)
  const digests = new Map<string, Sha256>()
  {
    await using node = await world.start(await world.folder(), {
      ipfsApi: [world.kubo.url],
      s3Url: world.minio.url,
      ...upstreamOf(world),
    })
    await fill(node)
    const before = performance.now()
    node.owner.pins!.wake()
    const { library } = node.owner
    for (const [path, bytes] of files) digests.set(library.open(DATASET, path).root, sha256Of(bytes))
    expect(digests.size).toBeGreaterThan(1000)
    await untilPinned(node, digests.size + 1, 10 * 60_000)
    console.log(`${digests.size} roots pinned twice in ${Math.round(performance.now() - before)} ms`)

    const catalog = library.releases().map(({ current }) => current!.catalog.root)
    const listed = (await world.kubo.run('pin', 'ls', '--type=recursive', '--quiet')).toString().split('\n')
    const ours = listed.filter(cid => cid && !cid.startsWith('Qm')) // Kubo's own: an empty folder
    expect(ours.toSorted()).toEqual([...digests.keys(), ...catalog].toSorted())

    for (const drive of [2, 5])
      await rm(join(world.minio.folder, `drive${drive}`), { recursive: true, force: true })
    for await (const proof of node.owner.pins!.verify({ signal })) {
      expect(proof.failed).toBe(0)
      if (proof.proved < proof.total) continue
      console.log(`${proof.target}: ${proof.proved} proven, ${proof.bytesRead} bytes read`)
      expect(proof.bytesRead).toBeGreaterThan(100_000_000)
    }
  }
  // the node is gone
  const cat = (root: string) => ({ url: `${world.kubo.url}/api/v0/cat?arg=${root}`, method: 'POST' })
  const gateway = (root: string) => ({ url: `${world.kubo.gatewayUrl}/ipfs/${root}`, method: 'GET' })
  for (const way of [cat, gateway]) expect(await wrongOnes(digests, way)).toEqual([])
})

async function wrongOnes(
  digests: ReadonlyMap<string, Sha256>,
  way: (root: string) => { readonly url: string; readonly method: string },
): Promise<string[]> {
  const wrong: string[] = []
  const left = digests.entries()
  const worker = async () => {
    for (const [root, digest] of left) {
      const { url, method } = way(root)
      const response = await fetch(url, { method })
      const bytes = Buffer.from(await response.arrayBuffer())
      if (response.status !== 200 || sha256Of(bytes) !== digest) wrong.push(`${root}: ${response.status}`)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return wrong
}

async function itemsOf(data: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  for (const archive of ARCHIVES) {
    const folder = join(process.env['TMPDIR'] ?? '/tmp', `towerlight-${process.pid}`, archive)
    await mkdir(folder, { recursive: true })
    await promisify(execFile)('tar', ['-xf', join(data, 'datasets', archive), '-C', folder])
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name)
      files.set(`${archive.replace('/', '-')}${path.slice(folder.length)}`, await readFile(path))
    }
    await rm(folder, { recursive: true })
  }
  for (let n = 0; n < GENERATED; n++) {
    const sizeBytes = n % 20 === 0 ? 700_000 + n * 300 : 500 + n * 37
    files.set(`generated/${n}.bin`, bytesOf(`generated ${n}`, sizeBytes))
  }
  return files
}
