/**
 * Numbers in [0, 1) for sampling: xorshift32 (Marsaglia 2003). Good enough for that, fast, and the
 * same on every machine for the same seed.
 */
export function xorshift(seed: number): () => number {
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 0x1_0000_0000
  }
}
