/**
 * What SHA-256 alone costs on this machine, in CPU: the part of a verified read that nobody can save.
 */
import { hash } from 'node:crypto'

/**
 * Microseconds for hashing pieces of these sizes, one after the other, as chunks are.
 * @param pieceBytes the mean over several requests: sizes of the chunks that one request needs hashed.
 */
export function sha256Us(pieceBytes: readonly (readonly number[])[]): number {
  const longest = Math.max(1, ...pieceBytes.flat())
  const bytes = Buffer.alloc(longest, 7)
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 5; round++) {
    const until = performance.now() + 100
    const before = process.cpuUsage()
    let requests = 0
    while (performance.now() < until) {
      for (const pieces of pieceBytes)
        for (const size of pieces) hash('sha256', bytes.subarray(0, size), 'hex')
      requests += pieceBytes.length
    }
    const { user, system } = process.cpuUsage(before)
    best = Math.min(best, (user + system) / requests)
  }
  return best
}
