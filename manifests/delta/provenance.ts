/**
 * Which bases a frame's literals really come from, byte by byte.
 *
 * A dictionary spans many bases, but most extents of a part use only their own predecessor, and
 * whoever holds just that one shall be able to rebuild them. zstd copies dictionary bytes without
 * looking at them, so expanding the frame against a dictionary of labels, in place of the old
 * bytes, shows where every byte came from. A byte that differs between a label and its inverse
 * is from the dictionary; what is equal is a literal of zstd's.
 */
import type { AddressRange } from './part.ts'
import { type Section, unpack } from './section.ts'

/**
 * @param dictionary in the order of its bytes.
 * @param baseAt the number of the base at an address, below 65,536.
 * @param baseEnd where that base ends.
 * @returns for each byte of the frame the base it came from, or −1.
 */
export async function originsOf(
  section: Section,
  dictionary: readonly AddressRange[],
  baseAt: (address: number) => number,
  baseEnd: (base: number) => number,
): Promise<Int32Array> {
  const origins = new Int32Array(section.rawBytes).fill(-1)
  const sizeBytes = dictionary.reduce((sum, { from, to }) => sum + to - from, 0)
  if (sizeBytes === 0) return origins
  const low = Buffer.alloc(sizeBytes)
  const high = Buffer.alloc(sizeBytes)
  let at = 0
  for (const { from, to } of dictionary) {
    for (let address = from; address < to; ) {
      const base = baseAt(address)
      const end = Math.min(to, baseEnd(base))
      low.fill(base & 0xff, at, at + end - address)
      high.fill(base >> 8, at, at + end - address)
      at += end - address
      address = end
    }
  }
  const inverse = low.map(label => label ^ 0xff)
  const [lows, highs, inverses] = await Promise.all(
    [low, high, inverse].map(labels => unpack(section, labels)),
  )
  for (let byte = 0; byte < origins.length; byte++) {
    if (lows![byte] !== inverses![byte]) origins[byte] = lows![byte]! | (highs![byte]! << 8)
  }
  return origins
}
