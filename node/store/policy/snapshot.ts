/**
 * Recency and frequency on disk: pieces that hold some extents' records each, and the learned
 * tables. `towerlight-policy-v2`, little endian:
 *
 *     magic "TLP2" · records u32 · now f64 · tables 2 × 336 and 2 × 624 f32 · records · CRC-32 u32
 *     record: key u32 · size f64 · count f32 · age u32 (requests before now) · state u8 · promise u8 · gap u8
 *
 * Pieces are applied in the order they were taken; the last record of a key counts. A damaged piece
 * is refused whole: its extents are merely less well known. Who holds what is the store's truth, not
 * ours: after a restore it says what we missed (`adopt`, `remove`).
 */
import { crc32 } from 'node:zlib'
import { GAP_SHAPE, SHAPE, type Demand } from './demand.ts'
import { EXEMPT } from './policy.ts'
import { EXEMPT_SHIFT, HOT, LIVE, RESIDENT, type Slots } from './slots.ts'

const MAGIC = 0x32504c54
const HEAD_BYTES = 4 + 4 + 8 + 8 * (SHAPE.rows * SHAPE.columns + GAP_SHAPE.rows * GAP_SHAPE.columns)
const RECORD_BYTES = 4 + 8 + 4 + 4 + 1 + 1 + 1
const REBASE = 0x8000_0000
/** Fills do not survive a restart as such: the warmers begin them anew. */
const KEPT = RESIDENT | HOT | ((EXEMPT.pinned | EXEMPT.mustHave) << EXEMPT_SHIFT)

export function encodePiece(slots: Slots, demand: Demand, chosen: Iterable<number>): Uint8Array {
  const records = [...chosen].filter(slot => slots.state[slot]! & LIVE)
  const bytes = new Uint8Array(HEAD_BYTES + records.length * RECORD_BYTES + 4)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, MAGIC, true)
  view.setUint32(4, records.length, true)
  view.setFloat64(8, demand.now + demand.rebases * REBASE, true)
  let at = 16
  for (const column of evidenceOf(demand)) {
    for (const value of column) {
      view.setFloat32(at, value, true)
      at += 4
    }
  }
  for (const slot of records) {
    view.setUint32(at, slots.key[slot]!, true)
    view.setFloat64(at + 4, slots.size[slot]!, true)
    view.setFloat32(at + 12, slots.count[slot]!, true)
    view.setUint32(at + 16, demand.now - slots.last[slot]!, true)
    view.setUint8(at + 20, slots.state[slot]! & KEPT)
    view.setUint8(at + 21, slots.promise[slot]!)
    view.setUint8(at + 22, slots.gap[slot]!)
    at += RECORD_BYTES
  }
  view.setUint32(at, crc32(bytes.subarray(0, at)), true)
  return bytes
}

/** Puts the records into `slots`, unlinked. @returns false, and nothing is changed, when damaged. */
export function applyPiece(bytes: Uint8Array, slots: Slots, demand: Demand): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length < HEAD_BYTES + 4 || view.getUint32(0, true) !== MAGIC) return false
  const records = view.getUint32(4, true)
  const end = HEAD_BYTES + records * RECORD_BYTES
  if (bytes.length !== end + 4) return false
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) return false

  demand.resume(view.getFloat64(8, true))
  let at = 16
  for (const column of evidenceOf(demand)) {
    for (let cell = 0; cell < column.length; cell++) {
      column[cell] = view.getFloat32(at, true)
      at += 4
    }
  }
  for (; at < end; at += RECORD_BYTES) {
    const key = view.getUint32(at, true)
    const size = view.getFloat64(at + 4, true)
    const known = slots.find(key)
    const slot = known < 0 ? slots.add(key, size) : known
    slots.size[slot] = size
    slots.count[slot] = view.getFloat32(at + 12, true)
    slots.last[slot] = Math.max(0, demand.now - view.getUint32(at + 16, true))
    slots.state[slot] = LIVE | (view.getUint8(at + 20) & KEPT)
    slots.promise[slot] = view.getUint8(at + 21)
    slots.gap[slot] = view.getUint8(at + 22)
  }
  return true
}

function evidenceOf({ table, gaps }: Demand): readonly Float64Array[] {
  return [...table.evidence, ...gaps.evidence]
}

const SORTED_AT_ONCE = 100_000

/**
 * The first `length` indexes of `column` in the order of their values: a radix sort, 16 bits at a time.
 * Yields now and then.
 */
export function* ascending(column: Uint32Array, length: number): Generator<void, Uint32Array> {
  let order = new Uint32Array(length)
  let spare = new Uint32Array(length)
  for (let slot = 0; slot < length; slot++) order[slot] = slot
  for (const shift of [0, 16]) {
    yield
    const starts = new Uint32Array(65_537)
    for (let slot = 0; slot < length; slot++) starts[((column[slot]! >>> shift) & 0xffff) + 1]!++
    for (let n = 1; n < starts.length; n++) starts[n]! += starts[n - 1]!
    for (let n = 0; n < length; n++) {
      const slot = order[n]!
      spare[starts[(column[slot]! >>> shift) & 0xffff]!++] = slot
      if (n % SORTED_AT_ONCE === 0) yield
    }
    ;[order, spare] = [spare, order]
  }
  return order
}
