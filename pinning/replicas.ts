/**
 * Which of several Kubo hosts keeps which item: at most `max` of them each, at least `min` while so
 * many are there. Every item has its own order of hosts (rendezvous hashing), so that shares are even
 * and a host more or less moves only what it must. A host that is away for long, or full, is passed
 * over; what took its place is let go when those that should have the item say that they do.
 */
import type { Cid } from '../manifests/cid.ts'
import { EdgeError } from '../manifests/errors.ts'
import type { PinRecord } from './pin-record.ts'
import type { Wishes } from './reconciler.ts'

export interface Replication {
  readonly min: number
  readonly max: number
}

/** `full`: it keeps what it has, and takes nothing more. */
export type HostState = 'there' | 'away' | 'full'

export interface ReplicaHost {
  readonly name: string
  readonly state: HostState
  /** As last recorded. */
  readonly pinned: ReadonlySet<Cid>
}

/** @param text `2-3`, or `2` for exactly so many. @throws EdgeError `CONFIG_INVALID` */
export function parseReplication(text: string | undefined, hosts: number): Replication {
  if (text === undefined) return { min: hosts, max: hosts }
  const [min = 1, max = min] = text.split('-').map(Number)
  if (min > max || max > hosts) {
    throw new EdgeError('CONFIG_INVALID', `${text} copies of each pin cannot be kept on ${hosts} Kubo hosts`)
  }
  return { min, max }
}

/** Whether the host is to keep the item. */
export function isKeptOn(
  name: string,
  root: Cid,
  hosts: readonly ReplicaHost[],
  { min, max }: Replication,
): boolean {
  const order = hosts.toSorted((a, b) => rankOf(b.name, root) - rankOf(a.name, root))
  const can = (host: ReplicaHost) =>
    host.state === 'there' || (host.state === 'full' && host.pinned.has(root))
  const first = order.slice(0, max)
  const missing = min - first.filter(can).length
  const instead = missing > 0 ? order.slice(max).filter(can).slice(0, missing) : []
  if ([...first, ...instead].some(host => host.name === name)) return true
  // one that took another's place stays until it is not needed
  const mine = hosts.find(host => host.name === name)
  return (mine?.pinned.has(root) ?? false) && !first.every(host => can(host) && host.pinned.has(root))
}

export interface ReplicasReport extends Replication {
  readonly hosts: number
  /** Pins with fewer copies than the least, as recorded after the last round; null before. */
  readonly under: number | null
}

interface ReplicasParts {
  readonly hosts: readonly string[]
  readonly replication: Replication
  readonly record: Pick<PinRecord, 'known'>
  readonly stateOf: (name: string) => HostState
}

/** The hosts of one node, with what is recorded of them. */
export class Replicas {
  readonly #parts: ReplicasParts
  #under: number | null = null

  constructor(parts: ReplicasParts) {
    this.#parts = parts
  }

  get report(): ReplicasReport {
    const { hosts, replication } = this.#parts
    return { ...replication, hosts: hosts.length, under: this.#under }
  }

  /** What of the wishes this host is to keep. */
  async share(name: string, wishes: Wishes): Promise<Wishes> {
    const { replication } = this.#parts
    if (this.#isEverywhere) return wishes
    const hosts = await this.#hosts()
    const pins: Wishes['pins'][number][] = []
    for (const [at, pin] of wishes.pins.entries()) {
      if (isKeptOn(name, pin.root, hosts, replication)) pins.push(pin)
      if (at % PINS_AT_ONCE === PINS_AT_ONCE - 1) await new Promise(resolve => setImmediate(resolve))
    }
    return { pins, complete: wishes.complete }
  }

  async count(): Promise<void> {
    const copies = new Map<Cid, number>()
    for (const name of this.#parts.hosts) {
      for (const { root, status } of (await this.#parts.record.known(name)).values())
        copies.set(root, (copies.get(root) ?? 0) + (status === 'pinned' ? 1 : 0))
    }
    let under = 0
    for (const count of copies.values()) if (count < this.#parts.replication.min) under++
    this.#under = under
  }

  /** Before so much more is pinned. @param rooms of all targets that tell it, Kubo or not. */
  shortfalls(
    bytes: number,
    rooms: ReadonlyMap<string, number>,
  ): { readonly where: string; readonly bytes: number }[] {
    const { hosts, replication } = this.#parts
    const short = [...rooms].map(([name, room]) => ({ where: `${name} is`, bytes: bytes - room, name }))
    if (this.#isEverywhere) return short.filter(each => each.bytes > 0)
    const known = hosts.map(name => rooms.get(name))
    const together = known.reduce((sum: number, room) => sum + (room ?? Number.POSITIVE_INFINITY), 0)
    const copies = { where: 'the Kubo hosts together are', bytes: bytes * replication.min - together }
    return [...short.filter(({ name }) => !hosts.includes(name)), copies].filter(each => each.bytes > 0)
  }

  get #isEverywhere(): boolean {
    const { hosts, replication } = this.#parts
    return replication.min >= hosts.length
  }

  async #hosts(): Promise<ReplicaHost[]> {
    const { hosts, record, stateOf } = this.#parts
    return await Promise.all(
      hosts.map(async name => {
        const rows = [...(await record.known(name)).values()]
        const pinned = new Set(rows.filter(({ status }) => status === 'pinned').map(({ root }) => root))
        return { name, state: stateOf(name), pinned }
      }),
    )
  }
}

const PINS_AT_ONCE = 500

/** FNV-1a over both names, mixed once more; a CID ends in its digest, which is random already. */
function rankOf(host: string, root: Cid): number {
  let hash = 0x811c9dc5
  const add = (text: string) => {
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  }
  add(host)
  add(root.slice(-12))
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b)
  return (hash ^ (hash >>> 16)) >>> 0
}
