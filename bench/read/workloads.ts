/**
 * The files to serve and the requests to make, the same for every server.
 */
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { createCipheriv } from 'node:crypto'
import { join } from 'node:path'
import { CHUNKING, nextCut } from '../../manifests/fastcdc.ts'
import type { Load } from './load.ts'

const KiB = 1024
const MiB = 1024 * KiB
const SIZES = { '1k': KiB, '64k': 64 * KiB, '1m': MiB, '16m': 16 * MiB } as const
const CONNECTIONS = { '1k': 32, '64k': 32, '1m': 16, '16m': 8 } as const
const RANGE_BYTES = 64 * KiB
const RANGES = 2_000
const ZIPF_REQUESTS = 20_000

export interface Sizes {
  readonly bigMib: number
  /** Small items of the Zipf mix. */
  readonly items: number
  readonly seed: number
}

export interface Workload extends Load {
  /** Of a sample of the requests: sizes of the chunks that cover each, so what must be hashed. */
  readonly hashedBytes: readonly (readonly number[])[]
}

export function writeFiles(folder: string, { bigMib, items, seed }: Sizes): void {
  const noise = noiseOf(seed)
  for (const [name, bytes] of Object.entries(SIZES)) writeFileSync(join(folder, name), noise(bytes))
  const random = randomOf(seed)
  for (let i = 0; i < items; i++) writeFileSync(join(folder, `item-${i}`), noise(itemBytes(random)))
  const big = openSync(join(folder, 'big'), 'w')
  for (let i = 0; i < bigMib; i++) writeSync(big, noise(MiB))
  closeSync(big)
}

export function* workloads(folder: string, { items, seed }: Sizes): Generator<Workload> {
  for (const name of Object.keys(SIZES) as (keyof typeof SIZES)[]) {
    const chunks = chunksOf(readFileSync(join(folder, name))).map(({ first, last }) => last - first + 1)
    // Small ones come from memory, where the whole item is one hash.
    const hashedBytes = SIZES[name] <= 64 * KiB ? [[SIZES[name]]] : [chunks]
    yield { name, requests: [{ path: pathOf(name) }], connections: CONNECTIONS[name], hashedBytes }
  }

  const big = readFileSync(join(folder, 'big'))
  const chunks = chunksOf(big)
  const random = randomOf(seed)
  const pick = (count: number): number => Math.floor(random() * count)
  const aligned = Array.from({ length: RANGES }, () => chunks[pick(chunks.length)]!)
  const anywhere = Array.from({ length: RANGES }, () => {
    const first = pick(big.length - RANGE_BYTES)
    return { first, last: first + RANGE_BYTES - 1 }
  })
  for (const [name, ranges] of [
    ['range-aligned', aligned],
    ['range', anywhere],
  ] as const) {
    yield {
      name,
      requests: ranges.map(({ first, last }) => ({ path: pathOf('big'), range: `${first}-${last}` })),
      connections: 32,
      hashedBytes: ranges.slice(0, 200).map(range => covering(chunks, range)),
    }
  }

  const byRank = zipfOf(items, 0.9)
  const drawn = Array.from({ length: ZIPF_REQUESTS }, () => byRank(random()))
  yield {
    name: 'zipf',
    requests: drawn.map(rank => ({ path: pathOf(`item-${rank}`) })),
    connections: 32,
    hashedBytes: drawn.slice(0, 500).map(rank => [readFileSync(join(folder, `item-${rank}`)).length]),
  }
}

function pathOf(name: string): string {
  return `/data/bench/read/${name}`
}

interface Span {
  readonly first: number
  readonly last: number
}

function chunksOf(bytes: Buffer): Span[] {
  const spans: Span[] = []
  for (let first = 0; first < bytes.length; ) {
    const end = nextCut(bytes, first, bytes.length, CHUNKING)
    spans.push({ first, last: end - 1 })
    first = end
  }
  return spans
}

function covering(chunks: readonly Span[], range: Span): number[] {
  return chunks
    .filter(({ first, last }) => first <= range.last && range.first <= last)
    .map(({ first, last }) => last - first + 1)
}

/** 1 KiB to 64 KiB, most of them small: log-uniform. */
function itemBytes(random: () => number): number {
  return Math.round(KiB * 2 ** (random() * 6))
}

/** Ranks from 0, by a uniform number: P(rank) ~ 1/(rank+1)^alpha. */
function zipfOf(count: number, alpha: number): (uniform: number) => number {
  const sums: number[] = []
  for (let rank = 0; rank < count; rank++) sums.push((sums.at(-1) ?? 0) + 1 / (rank + 1) ** alpha)
  const total = sums.at(-1) ?? 1
  return uniform => {
    let [low, high] = [0, count - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sums[middle]! < uniform * total) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** Mulberry32: small, seeded, good enough to draw requests with. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Incompressible bytes, reproducible: a stream cipher's key stream. */
function noiseOf(seed: number): (lengthBytes: number) => Buffer {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16))
  return lengthBytes => cipher.update(Buffer.alloc(lengthBytes))
}
