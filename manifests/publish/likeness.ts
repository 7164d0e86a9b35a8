/**
 * A sketch of some bytes: two that share a part are likely to have a number of it in common
 * (Broder, "On the resemblance and containment of documents", 1997). The least hash of the 32 bytes
 * before every place, in four lanes.
 */
import { GEAR } from '../delta/likeness-index.ts'

const LANES = 4

export function likenessOf(bytes: Uint8Array): Uint32Array {
  const least = new Uint32Array(LANES).fill(0xffffffff)
  let rolling = 0
  for (const byte of bytes) {
    rolling = ((rolling << 1) + GEAR[byte]!) | 0
    const hash = Math.imul(rolling ^ (rolling >>> 15), 0x85ebca6b) >>> 0
    const lane = hash & (LANES - 1)
    if (hash < least[lane]!) least[lane] = hash
  }
  return least
}
