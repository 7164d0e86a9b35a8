/**
 * Which coding a client gets, how dictionaries are offered, and what is kept of encodings.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sha256Of } from '../../../manifests/digest.ts'
import { type Variant, isEncodable, keyOf, tagOf, useAsDictionary, variantsFor } from './codings.ts'
import { type EncodableItem, type Encoded, Encodings, PIECE_BYTES, pieceAt } from './encodings.ts'

const HELD = sha256Of(Buffer.from('held'))
const HELD_FIELD = `:${Buffer.from(HELD, 'hex').toString('base64')}:`

describe('which coding', () => {
  it.each<[field: string, codings: string]>([
    ['zstd', 'zstd'],
    ['gzip, deflate, br, zstd', 'zstd br gzip'],
    ['gzip', 'gzip'],
    ['x-gzip', 'gzip'],
    ['GZip;Q=0.5 , BR ; q=0.8', 'br gzip'],
    ['gzip;q=1.0, zstd;q=0.2', 'gzip zstd'],
    ['gzip;q=0', ''],
    ['zstd;q=0, br;q=0.001', 'br'],
    ['identity, gzip;q=0.5', ''],
    ['identity;q=0.5, gzip;q=0.5', 'gzip'],
    ['identity;q=0, br', 'br'],
    ['*', ''],
    ['', ''],
    ['deflate, compress, made-up', ''],
    ['gzip;q=2', ''],
    ['gzip;q=nan', ''],
    ['br;q=1;level=3', ''],
    [`gzip,${' '.repeat(600)}br`, ''],
    ['dcz, zstd', 'dcz zstd'],
    ['dcz', 'dcz'],
    ['dcb', ''],
  ])('%j gives %j', (field, codings) => {
    expect(
      variantsFor(field, HELD_FIELD)
        .map(({ coding }) => coding)
        .join(' '),
    ).toBe(codings)
  })

  it.each([undefined, '', ':AAAA:', HELD_FIELD.slice(1), `${HELD_FIELD};x=1`, `"${HELD}"`])(
    'without a dictionary that can be read (%j) no dictionary is used',
    field => {
      expect(variantsFor('dcz, br', field)).toEqual([{ coding: 'br' }])
    },
  )

  it('names the dictionary', () => {
    expect(variantsFor('dcz', HELD_FIELD)).toEqual([{ coding: 'dcz', dictionary: HELD }])
  })
})

it.each<[mediaType: string, sizeBytes: number, is: boolean]>([
  ['text/html; charset=utf-8', 5_000, true],
  ['text/csv', 5_000, true],
  ['application/json', 5_000, true],
  ['application/geo+json', 5_000, true],
  ['application/xhtml+xml;charset=utf-8', 5_000, true],
  ['image/svg+xml', 5_000, true],
  ['application/wasm', 5_000, true],
  ['application/javascriptish', 5_000, false],
  ['text/event-stream', 5_000, false],
  ['image/jpeg', 5_000, false],
  ['application/pdf', 5_000, false],
  ['application/zip', 5_000, false],
  ['application/octet-stream', 5_000, false],
  ['text/plain', 1_023, false],
  ['text/plain', 1_024, true],
  ['text/plain', 8 * 1024 * 1024, true],
  ['text/plain', 8 * 1024 * 1024 + 1, false],
])('%s of %d bytes is encoded: %s', (mediaType, sizeBytes, is) => {
  expect(isEncodable(mediaType, sizeBytes)).toBe(is)
})

it('every representation has a tag and a key of its own', () => {
  const variants: Variant[] = [
    { coding: 'zstd' },
    { coding: 'br' },
    { coding: 'gzip' },
    { coding: 'dcz', dictionary: HELD },
    { coding: 'dcz', dictionary: sha256Of(Buffer.from('another')) },
  ]
  const items = [HELD, sha256Of(Buffer.from('another'))]
  for (const nameOf of [tagOf, keyOf]) {
    const names = items.flatMap(sha256 => variants.map(variant => nameOf(sha256, variant)))
    expect(new Set(names).size).toBe(names.length)
  }
  expect(tagOf(HELD, { coding: 'br' })).toMatch(new RegExp(`^sha256-${HELD}-br-[0-9a-f]{8}$`))
})

it.each([
  ['/data/a/b/page.html', 'match="/data/a/b/page.html"'],
  ['/data/a/b/x%20(1)*.txt', String.raw`match="/data/a/b/x%20\\(1\\)\\*.txt"`],
])('%s is offered as a dictionary to itself alone', (path, field) => {
  expect(useAsDictionary(path)).toBe(field)
})

describe('what is kept', () => {
  const text = Buffer.from('the same words again and again, and a number: '.repeat(400))
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tower-encodings-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  const open = () => Encodings.open({ folder, diskBytesMax: 10_000_000, memoryBytesMax: 1_000_000 })
  const itemOf = (bytes: Buffer, given = bytes) => {
    const item = { sha256: sha256Of(bytes), reads: 0, read: async () => (item.reads++, given) }
    return item satisfies EncodableItem
  }
  const file = async () => {
    const found = await readdir(folder, { recursive: true, withFileTypes: true })
    const [only] = found.filter(entry => entry.isFile())
    return join(only!.parentPath, only!.name)
  }

  it('is made once, for all who ask, and found again in memory and after a restart', async () => {
    const item = itemOf(text)
    {
      await using encodings = await open()
      expect(encodings.inMemory(item.sha256, { coding: 'gzip' })).toBeUndefined()
      const asked = Array.from({ length: 5 }, () => encodings.get(item, { coding: 'gzip' }))
      for (const made of await Promise.all(asked)) {
        expect(gunzipSync((made as Encoded).bytes).equals(text)).toBe(true)
      }
      expect(encodings.inMemory(item.sha256, { coding: 'gzip' })).toMatchObject({
        sha256: sha256Of((await readFile(await file())).subarray(32)),
      })
      expect(item.reads).toBe(1)
    }
    await using again = await open()
    expect(await again.get(item, { coding: 'gzip' })).toMatchObject({ pieces: [] })
    expect(item.reads).toBe(1)
  })

  it('is made anew when a byte on disk has flipped', async () => {
    const item = itemOf(text)
    await (await open()).get(item, { coding: 'zstd' })
    const path = await file()
    const bytes = await readFile(path)
    bytes[40]! ^= 1
    await writeFile(path, bytes)
    const made = (await (await open()).get(item, { coding: 'zstd' })) as Encoded
    expect(zstdDecompressSync(made.bytes).equals(text)).toBe(true)
    expect(item.reads).toBe(2)
  })

  it('is not made from bytes that are not the item', async () => {
    const item = itemOf(text, Buffer.concat([text.subarray(1), Buffer.from('x')]))
    await using encodings = await open()
    await expect(encodings.get(item, { coding: 'br' })).rejects.toMatchObject({
      code: 'CHUNK_CORRUPT',
    })
  })

  it('is nothing where nothing is gained, and that is remembered', async () => {
    const item = itemOf(randomBytes(20_000))
    await using encodings = await open()
    expect(await encodings.get(item, { coding: 'br' })).toBe('as-it-is')
    expect(encodings.inMemory(item.sha256, { coding: 'br' })).toBe('as-it-is')
    expect(await (await open()).get(item, { coding: 'br' })).toBe('as-it-is')
    expect(item.reads).toBe(1)
  })

  it('is bounded: who comes when too many wait gets the item as it is', async () => {
    await using encodings = await open()
    const asked = Array.from({ length: 60 }, (_, i) =>
      encodings.get(itemOf(Buffer.concat([Buffer.from(String(i)), text])), { coding: 'gzip' }),
    )
    const made = await Promise.all(asked)
    const refused = made.filter(each => each === 'as-it-is').length
    expect(refused).toBeGreaterThan(0)
    expect(refused).toBeLessThan(30)
  })

  it('is not made when the battery is low, and is made later', async () => {
    let isAllowed = false
    const limits = { diskBytesMax: 1e6, memoryBytesMax: 1e6, isAllowed: () => isAllowed }
    const encodings = await Encodings.open({ folder, ...limits })
    expect(await encodings.get(itemOf(text), { coding: 'zstd' })).toBe('as-it-is')
    isAllowed = true
    expect(await encodings.get(itemOf(text), { coding: 'zstd' })).toMatchObject({ pieces: [] })
  })

  it('takes nothing of the reserve of the disk', async () => {
    const item = itemOf(text)
    const limits = { diskBytesMax: 1e6, memoryBytesMax: 1e6, reserveBytes: Number.MAX_SAFE_INTEGER }
    const encodings = await Encodings.open({ folder, ...limits })
    expect(await encodings.get(item, { coding: 'zstd' })).toMatchObject({ pieces: [] })
    expect(await readdir(join(folder, 'encodings-v1'))).toEqual([])
  })

  it('gives back what was given out under a path, proven by its digest, and under no other', async () => {
    const item = { ...itemOf(text), path: '/data/a/b/text' }
    await using encodings = await open()
    expect(await encodings.dictionary('/data/a/b/text', item.sha256)).toBeUndefined()
    await encodings.get(itemOf(text), { coding: 'zstd' })
    expect(await encodings.dictionary('/data/a/b/text', item.sha256)).toBeUndefined()
    await encodings.get(item, { coding: 'zstd' })
    expect((await encodings.dictionary('/data/a/b/text', item.sha256))?.equals(text)).toBe(true)
    expect(await encodings.dictionary('/data/a/b/other', item.sha256)).toBeUndefined()
  })

  it('goes when what must not be served has changed, not when it is looked at again', async () => {
    const source = itemOf(text)
    const item = { ...source, path: '/x' }
    for (const [epoch, reads] of [
      ['a', 1],
      ['a', 1],
      ['b', 2],
      ['b', 2],
      ['a', 3],
    ] as const) {
      await using encodings = await open()
      await encodings.begin(epoch)
      await encodings.get(item, { coding: 'zstd' })
      await encodings.get(item, { coding: 'zstd' })
      expect([epoch, source.reads]).toEqual([epoch, reads])
    }
    await using encodings = await open()
    await encodings.get(item, { coding: 'zstd' })
    expect(await encodings.dictionary('/x', item.sha256)).toBeDefined()
    await encodings.begin('c')
    expect(encodings.inMemory(item.sha256, { coding: 'zstd' })).toBeUndefined()
    expect(await encodings.dictionary('/x', item.sha256)).toBeUndefined()
  })

  it('a worker reads what the owner keeps, and makes nothing', async () => {
    const item = itemOf(text)
    const worker = Encodings.reader({ folder, memoryBytesMax: 1_000_000 })
    expect(await worker.get(item, { coding: 'zstd' })).toBe('not-here')
    await (await open()).get(item, { coding: 'zstd' })
    const found = (await worker.get(item, { coding: 'zstd' })) as Encoded
    expect(zstdDecompressSync(found.bytes).equals(text)).toBe(true)
  })

  it('the version before makes the next one small; what was not given out under its path does not', async () => {
    const old = Buffer.from(randomBytes(50_000).toString('hex'))
    const next = Buffer.concat([old.subarray(0, 20_000), Buffer.from('new'), old.subarray(20_000)])
    const item = { ...itemOf(next), path: '/data/a/b/text' }
    const variant: Variant = { coding: 'dcz', dictionary: sha256Of(old) }
    await using encodings = await open()
    await encodings.get({ ...itemOf(old), path: '/data/a/b/other' }, { coding: 'zstd' })
    expect(await encodings.get(item, variant)).toBe('as-it-is')
    await encodings.get({ ...itemOf(old), path: item.path }, { coding: 'zstd' })
    const made = (await encodings.get(item, variant)) as Encoded
    expect(made.bytes.length).toBeLessThan(1_000)
    expect(made.bytes.toString('hex', 0, 40)).toBe(`5e2a4d1820000000${sha256Of(old)}`)
    expect(zstdDecompressSync(made.bytes.subarray(40), { dictionary: old }).equals(next)).toBe(true)
  })

  it('large ones are verified piece by piece', async () => {
    const hex = Buffer.from(randomBytes(400_000).toString('hex'))
    await using encodings = await open()
    const { bytes, pieces } = (await encodings.get(itemOf(hex), { coding: 'gzip' })) as Encoded
    expect(pieces.length).toBe(Math.ceil(bytes.length / PIECE_BYTES))
    expect(pieces.map((_, i) => sha256Of(pieceAt(bytes, i)))).toEqual(pieces)
  })
})
