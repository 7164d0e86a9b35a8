/**
 * What goes on behind a store that serves: telling the policy what is here, tidying up after crashes,
 * taking a damaged database apart, and once a second writing down what only matters later.
 */
import { codecOf, type Cid } from '../../manifests/cid.ts'
import { keepBallast } from './ballast.ts'
import type { StoreParts } from './parts.ts'
import { reconcile } from './reconcile.ts'
import { Salvage, type SalvagedBlock } from './salvage.ts'
import type { StoreOptions } from './store.ts'

const TICK_MS = 1000
const PROMISED_AT_ONCE = 1000
/** The policy is told of lost space from so much on. */
const CAPACITY_STEP = 0.005
const LOW_WATER = 0.98

export class Upkeep {
  readonly #parts: StoreParts
  readonly #options: StoreOptions
  readonly #ticking: NodeJS.Timeout | undefined
  #asides: string[] = []
  #ready: Promise<void> = Promise.resolve()
  #running: Promise<void> = Promise.resolve()

  constructor(parts: StoreParts, options: StoreOptions) {
    this.#parts = parts
    this.#options = options
    if (!parts.owner) return
    this.#ticking = setInterval(() => this.#tick(), TICK_MS).unref()
  }

  /** Resolves when the policy knows what is here: admissions wait for it. */
  get ready(): Promise<void> {
    return this.#ready
  }

  /** Resolves when nothing is left to do. */
  async settled(): Promise<void> {
    let running: Promise<void>
    do {
      running = this.#running
      await running
      await this.#parts.tiers.settled()
    } while (running !== this.#running)
  }

  /** Begins, or begins again after the database was replaced. */
  start(asidePath?: string): void {
    if (!this.#parts.owner) return
    if (asidePath) this.#asides.push(asidePath)
    const before = this.#running
    this.#ready = before.then(() => this.#load())
    this.#running = this.#ready.then(() => this.#tidy())
  }

  /** How much the tiers may hold now; the policy is told when that has changed. */
  async adaptToDisk(force = false): Promise<void> {
    const { space, tiers } = this.#parts
    await space.measure(force)
    const { usedBytes, hotBytes } = tiers.policy.usage()
    const capacity = space.capacity({ hotBytes, warmBytes: usedBytes - hotBytes })
    if (Math.abs(capacity.bytes - tiers.capacityBytes) <= tiers.capacityBytes * CAPACITY_STEP) return
    // down to the low water mark at once: not a little every second while somebody else writes
    const share = usedBytes > capacity.bytes ? LOW_WATER : 1
    tiers.resize(Math.floor(capacity.bytes * share), Math.floor(capacity.hotBytes * share))
  }

  async stop(): Promise<void> {
    clearInterval(this.#ticking)
    await this.#running.catch(() => undefined)
    if (this.#parts.owner) this.#note()
  }

  async #load(): Promise<void> {
    const { tiers, memory } = this.#parts
    for (const path of this.#asides.splice(0)) this.#parts.salvages.push(new Salvage(path))
    if (this.#parts.salvages.length > 0) this.#parts.rebuilding = true
    await this.adaptToDisk(true)
    await memory.restore(tiers.policy, () => this.#parts.stopped)
    await tiers.load()
  }

  async #tidy(): Promise<void> {
    const parts = this.#parts
    for (const tier of ['hot', 'warm'] as const) await parts.files[tier].removeDrafts().catch(() => 0)
    for (let salvage = parts.salvages[0]; salvage && !parts.stopped; salvage = parts.salvages[0]) {
      await this.#salvage(salvage)
      parts.salvages.shift()
      salvage.discard()
    }
    await reconcile({
      ...parts,
      stopped: () => parts.stopped,
      onCame: (cid, sizeBytes) => this.#adopted(cid, sizeBytes),
      onGone: (cid, sizeBytes) => parts.went(cid, sizeBytes),
    })
    if (!parts.stopped) parts.rebuilding = false
    await keepBallast(this.#options.folder, this.#options.reserveBytes, parts.space.spareBytes('hot'))
  }

  #adopted(cid: Cid, sizeBytes: number): void {
    const row = this.#parts.table.find(cid)
    if (row?.tier) this.#parts.tiers.adopt(row)
    this.#parts.came(cid, sizeBytes)
  }

  async #salvage(salvage: Salvage): Promise<void> {
    const { commits, nodes, events } = this.#parts
    let count = 0
    for (const table of ['nodes', 'small_blocks'] as const) {
      for (const blocks of salvage.blocks(table)) {
        if (this.#parts.stopped) return
        count += blocks.length
        if (table === 'small_blocks') await this.#takeSmall(blocks)
        else {
          await commits.commit(() => {
            for (const block of blocks) nodes.insert(block)
          })
          for (const { cid } of blocks) for (const watcher of this.#parts.watchers) watcher.nodeCame?.(cid)
        }
        await new Promise(resolve => setImmediate(resolve))
      }
    }
    await commits.commit(() =>
      events.add('damaged', 'node.db', `${count} blocks were taken out of the damaged database`),
    )
  }

  async #takeSmall(blocks: readonly SalvagedBlock[]): Promise<void> {
    const { commits, table, small } = this.#parts
    const fresh = blocks.filter(({ cid }) => !table.find(cid)?.tier)
    await commits.commit(() => {
      for (const { cid, bytes } of fresh) {
        const id = table.idOf(cid)
        const verifiedAtMs = codecOf(cid) === 'raw' ? this.#parts.now() : 0
        table.insert({
          id,
          cid,
          sizeBytes: bytes.length,
          tier: 'hot',
          small: true,
          held: 0,
          verifiedAtMs,
          why: 'salvaged',
        })
        small.put(id, cid, bytes)
      }
    })
    for (const { cid, bytes } of fresh) this.#adopted(cid, bytes.length)
  }

  #tick(): void {
    this.#note()
    this.adaptToDisk().catch(() => undefined)
  }

  #note(): void {
    const { table, memory, tiers, commits } = this.#parts
    if (!tiers.loaded) return
    this.#parts.commitQuietly(() => {
      table.insertPromised(PROMISED_AT_ONCE)
      memory.write(tiers.policy)
    })
    if (this.#parts.stopped) commits.flush()
  }
}
