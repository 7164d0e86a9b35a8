import { describe, expect, it } from 'vitest'
import { rawCidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { CHUNKING } from './fastcdc.ts'
import { encodeManifest, manifestPath, parseManifest, type Manifest } from './manifest.ts'
import { extentNode } from './unixfs.ts'

const directory = { offset: 8, size: 20, rawSize: 40, sha256: sha256Of('directory') }
const manifest: Manifest = {
  format: 'towerlight-manifest-v1',
  dataset: 'education/physics-book',
  title: 'Physics',
  revision: 7,
  published: '2026-11-20T09:30:00Z',
  priority: 1,
  pin: { ipfs: true, s3: false, paths: ['units/**'] },
  chunking: CHUNKING,
  catalog: {
    root: extentNode([{ digest: sha256Of('page'), sizeBytes: 4 }]).cid,
    sha256: sha256Of('catalog'),
    size: 4,
    items: 1,
    itemBytes: 100,
  },
  packs: [{ sha256: sha256Of('pack'), size: 100, directory }],
  deltas: [{ from: 6, sha256: sha256Of('delta'), size: 50, directory }],
}

describe('manifest', () => {
  it('is what it was', () => {
    expect(parseManifest(encodeManifest(manifest))).toEqual(manifest)
  })

  it('has one encoding, whatever the order of keys', () => {
    const shuffled = Object.fromEntries(Object.entries(manifest).toReversed()) as unknown as Manifest
    expect(encodeManifest(shuffled)).toEqual(encodeManifest(manifest))
    expect(encodeManifest(manifest).toString()).toMatch(
      /^\{"format":"towerlight-manifest-v1","dataset":"education\/physics-book","title":/,
    )
  })

  it('leaves out what is not there', () => {
    const { title: _title, pin: _pin, ...bare } = manifest
    expect(encodeManifest(bare).toString()).not.toMatch(/title|pin/)
    expect(parseManifest(encodeManifest(bare))).toEqual(bare)
  })

  it('lets keys of a later version through', () => {
    const later = Buffer.from(encodeManifest(manifest).toString().replace('{', '{"later":true,'))
    expect(parseManifest(later)).toEqual(manifest)
  })

  it('has the place that TUF gives to a target', () => {
    expect(manifestPath('education/physics-book', sha256Of('m'))).toBe(
      `targets/education/physics-book/${sha256Of('m')}.manifest.json`,
    )
  })

  const wrong: [string, (value: Record<string, unknown>) => unknown][] = [
    ['another format', value => (value.format = 'towerlight-manifest-v2')],
    ['another chunking', value => (value.chunking = { ...CHUNKING, avgBytes: 32_768 })],
    ['revision 0', value => (value.revision = 0)],
    ['a revision of half', value => (value.revision = 1.5)],
    ['a dataset upwards', value => (value.dataset = '../../etc')],
    ['a local time', value => (value.published = '2026-11-20T09:30:00+02:00')],
    ['the 31st of February', value => (value.published = '2026-02-31T29:30:00Z')],
    ['class 4', value => (value.priority = 4)],
    [
      'a raw root of other bytes',
      value => (value.catalog = { ...manifest.catalog, root: rawCidOf(sha256Of('x')) }),
    ],
    ['a directory outside its pack', value => (value.packs = [{ ...manifest.packs[0], size: 27 }])],
    ['a pack that is too large', value => (value.packs = [{ ...manifest.packs[0], size: 2 ** 31 }])],
    ['no packs', value => delete value.packs],
  ]
  it.each(wrong)('refuses %s', (_, change) => {
    const value = JSON.parse(encodeManifest(manifest).toString()) as Record<string, unknown>
    change(value)
    expect(() => parseManifest(Buffer.from(JSON.stringify(value)))).toThrow(
      expect.objectContaining({ code: 'MANIFEST_INVALID' }),
    )
  })

  it.each([
    Buffer.from(''),
    Buffer.from('null'),
    Buffer.from('{'),
    Buffer.of(0xff),
    Buffer.alloc(2 ** 21, ' '),
  ])('refuses what is no manifest', bytes => {
    expect(() => parseManifest(bytes)).toThrow(expect.objectContaining({ code: 'MANIFEST_INVALID' }))
  })
})
