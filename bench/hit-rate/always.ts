/** A trace behind a link that is always up: every request counted, from a cold start. */
import { LearnedPolicy } from '../../node/store/policy/learned-policy.ts'
import type { KeepPolicy } from '../../node/store/policy/policy.ts'
import type { Trace } from '../trace.ts'
import { Gdsf } from './policies/gdsf.ts'
import { Lru } from './policies/lru.ts'
import { S3Fifo } from './policies/s3-fifo.ts'
import { Sieve } from './policies/sieve.ts'
import { ValueLru } from './policies/value-lru.ts'
import { WTinyLfu } from './policies/w-tiny-lfu.ts'
import { Tally, type Ratios } from './tally.ts'

export interface PolicyOptions {
  readonly capacityBytes: number
  readonly alpha: number
  readonly seed: number
}

export const POLICIES: Readonly<Record<string, (options: PolicyOptions) => KeepPolicy>> = {
  learned: ({ capacityBytes, alpha, seed }) =>
    new LearnedPolicy({ capacityBytes, hotBytesMax: Math.floor(capacityBytes / 5), alpha, seed }),
  'value-lru': ({ capacityBytes, alpha, seed }) => new ValueLru(capacityBytes, alpha, seed),
  lru: ({ capacityBytes }) => new Lru(capacityBytes),
  sieve: ({ capacityBytes }) => new Sieve(capacityBytes),
  's3-fifo': ({ capacityBytes }) => new S3Fifo(capacityBytes),
  'w-tinylfu': ({ capacityBytes }) => new WTinyLfu(capacityBytes),
  gdsf: ({ capacityBytes, alpha }) => new Gdsf(capacityBytes, alpha),
}

export interface AlwaysResult extends Ratios {
  readonly cpuUsPerRequest: number
  /** Share of the hits that the hot tier answered, where a policy has one. */
  readonly hotShare: number
}

/** @param onRequest sees every outcome, for plots. */
export function replay(trace: Trace, policy: KeepPolicy, onRequest?: (hit: boolean) => void): AlwaysResult {
  const tally = new Tally()
  const { key, size, seconds } = trace
  let hot = 0
  const before = process.cpuUsage()
  for (let n = 0; n < key.length; n++) {
    const { outcome, place, promote } = policy.request(key[n]!, size[n]!, seconds[n]!)
    const hit = outcome === 'hit'
    if (hit && place === 'hot' && !promote) hot++
    tally.count(hit, size[n]!)
    onRequest?.(hit)
  }
  const { user, system } = process.cpuUsage(before)
  const cpuUsPerRequest = Math.round(((user + system) / key.length) * 100) / 100
  return {
    ...tally.ratios,
    cpuUsPerRequest,
    hotShare: Math.round((hot / Math.max(1, tally.hits)) * 1e3) / 1e3,
  }
}
