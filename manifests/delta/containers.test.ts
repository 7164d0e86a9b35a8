import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { crc32, deflateRawSync } from 'node:zlib'
import { sha256Of } from '../digest.ts'
import { deltaBytes } from './build.ts'
import { deflate, INFO_ZIP, type DeflateSettings } from './exact-deflate.ts'
import { StaticDelta } from './delta.ts'
import { keyOf } from './head.ts'
import { releaseOf } from './testing.ts'

type Squeeze = (raw: Uint8Array) => Uint8Array

/** A zip as far as readers of local headers care; the central directory is left out. */
function zipOf(members: ReadonlyMap<string, Uint8Array>, squeeze: Squeeze): Buffer {
  const pieces: Uint8Array[] = []
  for (const [name, raw] of members) {
    const stored = squeeze(raw)
    const header = Buffer.alloc(30)
    header.write('PK\x03\x04', 'latin1')
    header.writeUInt16LE(8, 8)
    header.writeUInt32LE(crc32(raw), 14)
    header.writeUInt32LE(stored.length, 18)
    header.writeUInt32LE(raw.length, 22)
    header.writeUInt16LE(Buffer.byteLength(name), 26)
    pieces.push(header, Buffer.from(name), stored)
  }
  return Buffer.concat(pieces)
}

const chapter = (number: number, bytes: number) => {
  let text = ''
  for (let line = 0; text.length < bytes; line++)
    text += `${number}.${line} ${Math.imul(line + number, 2654435761) >>> 0} of what is told here\n`
  return Buffer.from(text)
}

function book(edition: 1 | 2, chapters = 12): Map<string, Uint8Array> {
  const members = new Map<string, Uint8Array>()
  for (let number = 0; number < chapters; number++) {
    let text = chapter(number, 40_000 + number * 2500)
    if (edition === 2 && number % 3 === 0)
      text = Buffer.concat([text.subarray(0, 9000), Buffer.from(`corrected ${number}`), text.subarray(9000)])
    members.set(`chapter-${number}.xhtml`, text)
  }
  return members
}

async function deltaOf(old: Uint8Array, next: Uint8Array) {
  const from = releaseOf(new Map([['book.epub', old]]))
  const to = releaseOf(new Map([['book.epub', next]]))
  const { bytes, directory, sizeBytes } = await deltaBytes(from, to)
  const head = bytes.subarray(directory.offset, directory.offset + directory.size)
  const delta = await StaticDelta.open(head, { ...directory, sha256: sha256Of(head) })
  const byKey = new Map([...from.byCid].map(([cid, content]) => [keyOf(cid), content]))
  const rootOf = new Map([from.catalog, ...from.all].map(({ root, extents }) => [keyOf(root), extents]))
  delta.nameCatalog(to.catalog, key => rootOf.get(key))
  delta.nameItems(to.entries, key => rootOf.get(key))
  for (const cid of delta.extents.keys()) {
    const rebuilt = await delta.rebuild(
      cid,
      async (at, length) => bytes.subarray(at, at + length),
      async ({ key }, at, length) => byKey.get(key)!.subarray(at, at + length),
    )
    expect(Buffer.compare(rebuilt, to.byCid.get(cid)!)).toBe(0)
  }
  return { sizeBytes, extents: to.all[0]!.extents.length }
}

describe('a delta of zip containers', () => {
  it('is made of what was changed inside, across borders of extents, too', async () => {
    const [old, next] = [book(1, 90), book(2, 90)].map(members =>
      zipOf(members, raw => deflate(raw, { level: 3, memLevel: 8 })),
    ) as [Buffer, Buffer]
    const { sizeBytes, extents } = await deltaOf(old, next)
    expect(extents).toBeGreaterThan(1)
    expect(sizeBytes).toBeLessThan(30 * 150)
  })

  const makers: { name: string; settings: DeflateSettings }[] = [
    { name: 'zlib', settings: { level: 6, memLevel: 8 } },
    { name: 'zip -9', settings: { level: 9, memLevel: INFO_ZIP } },
  ]
  it.each(makers)('made by $name is made of what was changed inside', async ({ settings }) => {
    const [old, next] = [book(1), book(2)].map(members => zipOf(members, raw => deflate(raw, settings))) as [
      Buffer,
      Buffer,
    ]
    expect((await deltaOf(old, next)).sizeBytes).toBeLessThan(4 * 150 + 600)
  })

  it('whose maker has changed, too', async () => {
    const old = zipOf(book(1), raw => deflate(raw, { level: 6, memLevel: 8 }))
    const next = zipOf(book(2), raw => deflate(raw, { level: 9, memLevel: 8 }))
    expect((await deltaOf(old, next)).sizeBytes).toBeLessThan(12 * 100 + 600)
  })

  it('that cannot be made again is right all the same', async () => {
    const [old, next] = [book(1), book(2)].map(members =>
      zipOf(members, raw => deflateRawSync(raw, { level: 6 })),
    ) as [Buffer, Buffer]
    expect((await deltaOf(old, next)).sizeBytes).toBeLessThan(next.length)
  })

  it('whose streams are damaged, cut off or bombs, is right all the same', async () => {
    const old = zipOf(book(1), raw => deflate(raw, { level: 6, memLevel: 8 }))
    const next = zipOf(book(2), raw => deflate(raw, { level: 6, memLevel: 8 }))
    const bomb = zipOf(new Map([['chapter-0.xhtml', Buffer.alloc(9_000_000)]]), raw =>
      deflate(raw, { level: 9, memLevel: 8 }),
    )
    for (let at = 0; at < 20; at++) next[Math.floor((at * next.length) / 20)]! ^= 0x55
    for (let at = 0; at < 20; at++) old[Math.floor((at * old.length) / 23)]! ^= 0xaa
    await deltaOf(old, next)
    await deltaOf(old.subarray(0, 100_000), next.subarray(300, 150_000))
    await deltaOf(Buffer.concat([bomb, old]), Buffer.concat([randomBytes(9), bomb, next]))
  })
})
