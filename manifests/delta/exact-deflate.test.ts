import { inflateRawSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { sha256Of } from '../digest.ts'
import { deflate, INFO_ZIP } from './exact-deflate.ts'

const WORDS =
  'tower light chunk extent window and the of a pin fill warm é 0 17 1984 \n health book page'.split(' ')

/** 400 KB of the same words every time. */
function text(): Buffer {
  let state = 7
  const next = (below: number) => {
    state = Number((BigInt(state) * 1103515245n + 12345n) & 0x7fffffffn)
    return (state >> 8) % below
  }
  let bytes = 0
  const pieces: string[] = []
  while (bytes < 400_000) {
    const word = `${WORDS[next(20)]} `
    const piece = next(50) === 0 ? word + String(next(100_000)) : word
    pieces.push(piece)
    bytes += Buffer.byteLength(piece)
  }
  return Buffer.from(pieces.join(''))
}

/** Made by Python 3.11 with zlib 1.2.13 (`compressobj(level, 8, -15, 8)`), and by `zip` 3.0 (`-X -level`). */
const MADE_BY_OTHERS = [
  {
    maker: 'zlib',
    level: 1,
    memLevel: 8,
    sizeBytes: 115_780,
    sha256: 'af0177db062b1fd2c5995e9ab4d84c88e0369ad0d6c9579ccdff57b7bf32a92a',
  },
  {
    maker: 'zlib',
    level: 6,
    memLevel: 8,
    sizeBytes: 87_830,
    sha256: 'f96a3591ed998946bcb55157a5ec04bbd77b955c6a0264a205e6fe1de14a5bca',
  },
  {
    maker: 'zlib',
    level: 9,
    memLevel: 8,
    sizeBytes: 83_604,
    sha256: '1379c175e47c75a7217c902cc0b6966252ab94faccae9b7c77514e67e1a458ce',
  },
  {
    maker: 'zip',
    level: 1,
    memLevel: INFO_ZIP,
    sizeBytes: 115_725,
    sha256: '53fb85d748f5c6a8e618a9b42a3f73d1847b745882b1ac0a3697365c813c9d44',
  },
  {
    maker: 'zip',
    level: 6,
    memLevel: INFO_ZIP,
    sizeBytes: 87_788,
    sha256: 'ccd463f539ca0030fc26701b1466cff3734ee7bfd6db6fdfc4b1ed64ea78078c',
  },
  {
    maker: 'zip',
    level: 9,
    memLevel: INFO_ZIP,
    sizeBytes: 83_593,
    sha256: '6590b177ef01faa82634a62f1fe050f4ce9cfcc6310d39541bbf0b225e11665a',
  },
]

describe('deflate', () => {
  const raw = text()
  it.each(MADE_BY_OTHERS)(
    'makes the bytes that $maker makes at level $level',
    ({ level, memLevel, sizeBytes, sha256 }) => {
      const stream = deflate(raw, { level, memLevel })
      expect(stream.length).toBe(sizeBytes)
      expect(sha256Of(stream)).toBe(sha256)
      expect(inflateRawSync(stream).equals(raw)).toBe(true)
    },
  )

  it('ends whatever it is given', () => {
    for (const length of [0, 1, 2, 70_000]) {
      for (const memLevel of [8, 9, INFO_ZIP]) {
        const bytes = raw.subarray(0, length)
        expect(inflateRawSync(deflate(bytes, { level: 6, memLevel })).equals(bytes)).toBe(true)
      }
    }
  })
})
