/**
 * Likenesses grown into what lies between them, as bsdiff does: on its own diagonal each goes on for
 * as long as more bytes are equal than not. In tables of numbers hardly a byte is equal eight times
 * in a row, and yet most are as they were.
 */
import type { Likeness } from './match-pool.ts'
import type { AddressRange } from './part.ts'

export type ReadOld = (ranges: readonly AddressRange[]) => Promise<Uint8Array>

const REACH_BYTES_MAX = 4096

/** @param alike in order, apart from each other; they stay so. */
export async function extended(
  alike: readonly Likeness[],
  bytes: Uint8Array,
  old: ReadOld,
): Promise<Likeness[]> {
  const grown = alike.map(likeness => ({ ...likeness }))
  for (let right = 0; right <= grown.length; right++) {
    const before = grown[right - 1]
    const after = grown[right]
    const from = before ? before.at + before.length : 0
    const to = after ? after.at : bytes.length
    if (from === to) continue
    const reach = Math.min(to - from, REACH_BYTES_MAX)

    const ahead = before ? await equalAhead(bytes, from, reach, before.address + before.length, old) : NONE
    const behind = after ? await equalBehind(bytes, to, reach, after.address, old) : NONE
    let forwards = bestLength(ahead)
    let backwards = bestLength(behind)
    if (forwards + backwards > to - from)
      [forwards, backwards] = bestSplit(ahead, behind, forwards, backwards, to - from)
    if (before && forwards > 0) {
      before.length += forwards
      before.equalBytes += ahead[forwards]!
    }
    if (after && backwards > 0) {
      after.at -= backwards
      after.address -= backwards
      after.length += backwards
      after.equalBytes += behind[backwards]!
    }
  }
  return grown
}

/** How many of the first 0, 1, 2, … bytes are equal. */
type Counts = Uint32Array

const NONE: Counts = new Uint32Array(1)

async function equalAhead(
  bytes: Uint8Array,
  from: number,
  reach: number,
  address: number,
  old: ReadOld,
): Promise<Counts> {
  const there = await old([{ from: address, to: address + reach }])
  const counts = new Uint32Array(there.length + 1)
  for (let at = 0; at < there.length; at++)
    counts[at + 1] = counts[at]! + (bytes[from + at] === there[at] ? 1 : 0)
  return counts
}

async function equalBehind(
  bytes: Uint8Array,
  to: number,
  reach: number,
  address: number,
  old: ReadOld,
): Promise<Counts> {
  const there = await old([{ from: Math.max(address - reach, 0), to: address }])
  const counts = new Uint32Array(there.length + 1)
  for (let at = 1; at <= there.length; at++) {
    counts[at] = counts[at - 1]! + (bytes[to - at] === there[there.length - at] ? 1 : 0)
  }
  return counts
}

function bestLength(counts: Counts): number {
  let best = 0
  let score = 0
  for (let length = 1; length < counts.length; length++) {
    if (counts[length]! * 2 - length <= score) continue
    score = counts[length]! * 2 - length
    best = length
  }
  return best
}

/** Where two that overlap meet, so that the most bytes are equal. */
function bestSplit(
  ahead: Counts,
  behind: Counts,
  forwards: number,
  backwards: number,
  gap: number,
): [number, number] {
  let best: [number, number] = [gap - backwards, backwards]
  let most = -1
  for (let length = gap - backwards; length <= forwards; length++) {
    const equal = ahead[length]! + behind[gap - length]!
    if (equal <= most) continue
    most = equal
    best = [length, gap - length]
  }
  return best
}
