import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutCatalogPages, encodeCatalog, parsePage, type CatalogEntry } from './catalog.ts'
import { PAGE_BYTES_MAX } from './catalog-page.ts'
import { cutExtent } from './chunk-rule.ts'
import { rawCidOf } from './cid.ts'
import { sha256Of } from './digest.ts'
import { isItemPath } from './item-path.ts'
import { extentNode } from './unixfs.ts'
import { vectors } from './vectors/vectors.ts'

interface Vectors {
  entries: CatalogEntry[]
  text: string
  numbered: { sha256: string; pageEnds: number[] }
}

/** The catalog of the vectors: items `items/<i>.txt`, each holding the digits of its number. */
export function numbered(count: number): CatalogEntry[] {
  return Array.from({ length: count }, (_, at) => entryOf(`items/${at}.txt`, `${at}`))
}

function entryOf(path: string, content: string): CatalogEntry {
  const sha256 = sha256Of(content)
  return {
    path,
    sizeBytes: Buffer.byteLength(content),
    sha256,
    root: rawCidOf(sha256),
    mediaType: 'text/plain; charset=utf-8',
  }
}

const anyPath = fc
  .array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), { minLength: 1, maxLength: 4 })
  .map(segments => segments.join('/'))
  .filter(isItemPath)
const anyEntry: fc.Arbitrary<CatalogEntry> = fc
  .record({
    path: anyPath,
    content: fc.string(),
    priority: fc.option(fc.constantFrom(0, 1, 2, 3), { nil: undefined }),
    title: fc.option(fc.string({ unit: 'grapheme-ascii' }), { nil: undefined }),
    large: fc.boolean(),
  })
  .map(({ path, content, priority, title, large }) => {
    const entry = entryOf(path, content)
    const root = large ? extentNode([{ digest: entry.sha256, sizeBytes: 5 }]).cid : entry.root
    return {
      ...entry,
      root,
      ...(priority !== undefined && { priority }),
      ...(title !== undefined && { title }),
    }
  })
const anyEntries = fc.uniqueArray(anyEntry, { selector: entry => entry.path, maxLength: 40 })

describe('catalog', () => {
  it('writes the bytes of the vectors', () => {
    const { entries, text, numbered: expected } = vectors('catalog.json') as Vectors
    expect(Buffer.from(encodeCatalog(entries)).toString()).toBe(text)
    expect(parsePage(Buffer.from(text))).toEqual(entries)
    const catalog = encodeCatalog(numbered(5000))
    expect(sha256Of(catalog)).toBe(expected.sha256)
    expect(cutCatalogPages(catalog)).toEqual(expected.pageEnds)
  })

  it('reads what it wrote, in the order of bytes', () => {
    fc.assert(
      fc.property(anyEntries, entries => {
        const sorted = entries.toSorted((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)))
        expect(parsePage(encodeCatalog(entries))).toEqual(sorted)
      }),
    )
  })

  it('has pages of whole lines that can be cut again from any page on', () => {
    const catalog = encodeCatalog(numbered(20_000))
    const ends = cutCatalogPages(catalog)
    expect(ends.length).toBeGreaterThan(30)
    expect(ends.at(-1)).toBe(catalog.length)
    const entries = ends.flatMap((end, at) => {
      const page = catalog.subarray(ends[at - 1] ?? 0, end)
      expect(page.length).toBeLessThanOrEqual(PAGE_BYTES_MAX)
      return parsePage(page)
    })
    expect(entries).toHaveLength(20_000)

    const from = ends[5]!
    expect(cutCatalogPages(catalog.subarray(from, ends[25]))).toEqual(
      ends.slice(6, 26).map(end => end - from),
    )
  })

  it('changes one page for one changed item, and two at most for a new one', () => {
    const entries = numbered(20_000)
    const before = new Set(cutExtent(encodeCatalog(entries), 'catalog-v1').map(chunk => chunk.digest))
    const newPages = (changed: CatalogEntry[]) =>
      cutExtent(encodeCatalog(changed), 'catalog-v1').filter(chunk => !before.has(chunk.digest)).length
    expect(newPages(entries.with(7777, entryOf('items/7777.txt', 'another')))).toBe(1)
    expect(newPages([...entries, entryOf('items/7777a.txt', 'new')])).toBeLessThanOrEqual(2)
  })

  it('cuts anything at all without failing, so that wrong bytes are found by their digest', () => {
    fc.assert(
      fc.property(fc.uint8Array(), bytes => {
        expect(cutCatalogPages(bytes).at(-1) ?? 0).toBe(bytes.length)
      }),
    )
    expect(cutCatalogPages(Buffer.alloc(1_000_000, 'x')).at(-1)).toBe(1_000_000)
  })

  it('refuses two items of one path', () => {
    expect(() => encodeCatalog([entryOf('a', '1'), entryOf('a', '2')])).toThrow(/two items/)
  })

  const good = '{"path":"a","size":1,"sha256":"' + sha256Of('a') + '","type":"text/plain"}\n'
  it.each([
    ['half a line', good.slice(0, -1)],
    ['an empty line', `${good}\n`],
    ['not JSON', 'x\n'],
    ['not an object', '[]\n'],
    ['null', 'null\n'],
    ['a repeated path', good + good],
    ['the wrong order', good + good.replace('"a"', '"A"')],
    ['a path upwards', good.replace('"a"', '"../a"')],
    ['an absolute path', good.replace('"a"', '"/a"')],
    ['a path that is a number', good.replace('"a"', '7')],
    ['a negative size', good.replace('"size":1', '"size":-1')],
    ['a size beyond 2^53', good.replace('"size":1', '"size":9007199254740993')],
    ['half a byte', good.replace('"size":1', '"size":1.5')],
    ['a short digest', good.replace(sha256Of('a'), 'abcd')],
    ['a header in the type', good.replace('text/plain', 'text/plain\\r\\nX: y')],
    ['a class 4', good.replace('}', ',"class":4}')],
    ['a root of its own for a raw item', good.replace('}', `,"root":"${rawCidOf(sha256Of('a'))}"}`)],
    ['a control character in the title', good.replace('}', ',"title":"\\u0007"}')],
    ['bytes that are not UTF-8', Buffer.from(good.replace('"a"', '"\xff"'), 'latin1')],
    ['an endless line', `{"path":"${'a/'.repeat(20_000)}a"}\n`],
  ])('refuses %s', (_, page) => {
    expect(() => parsePage(Buffer.from(page as string))).toThrow(
      expect.objectContaining({ code: 'CATALOG_INVALID' }),
    )
  })

  it('either reads lines of any JSON or says that they are invalid', () => {
    const survives = (page: Uint8Array) => {
      try {
        parsePage(page)
      } catch (error) {
        expect(error).toMatchObject({ code: 'CATALOG_INVALID' })
      }
    }
    const keys = fc.constantFrom(
      'path',
      'size',
      'sha256',
      'root',
      'type',
      'class',
      'title',
      '__proto__',
      'constructor',
    )
    fc.assert(
      fc.property(fc.dictionary(keys, fc.jsonValue()), line =>
        survives(Buffer.from(`${JSON.stringify(line)}\n`)),
      ),
    )
    const one = JSON.parse(good) as object
    fc.assert(
      fc.property(keys, fc.jsonValue(), (key, value) =>
        survives(Buffer.from(`${JSON.stringify({ ...one, [key]: value })}\n`)),
      ),
    )
    fc.assert(fc.property(fc.uint8Array(), bytes => survives(Buffer.concat([bytes, Buffer.of(10)]))))
  })

  it('ignores keys of a later version', () => {
    expect(parsePage(Buffer.from(good.replace('}', ',"later":[1]}')))).toHaveLength(1)
    expect(parsePage(Buffer.from(good.replace('}', ',"__proto__":{"title":"x"}}')))[0]).not.toHaveProperty(
      'title',
    )
  })
})
