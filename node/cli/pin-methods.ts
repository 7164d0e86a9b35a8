/**
 * What `tower pin …` can ask of the process that owns the store.
 */
import { z } from 'zod'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import type { PinTargetReport } from '../../pinning/pin-service.ts'
import type { ReplicasReport } from '../../pinning/replicas.ts'
import type { ControlMethods } from '../control.ts'
import { isOperatorPin } from '../needs.ts'
import type { Owner } from '../owner.ts'

const WishParams = z.strictObject({ wish: z.string().max(5000) })
const ListParams = z.strictObject({ target: z.string().optional() })

export interface PinReport {
  /** What the operator pinned: `dataset`, `dataset/path` or `dataset/folder/`. */
  readonly wishes: readonly string[]
  /** What publishers ask for, by dataset. */
  readonly policies: readonly {
    readonly dataset: string
    readonly ipfs: boolean
    readonly s3: boolean
    readonly paths: readonly string[] | null
  }[]
  readonly targets: readonly PinTargetReport[]
  /** Of the pins in Kubo, where there are several hosts. */
  readonly replicas?: ReplicasReport
}

export interface PinAdded {
  readonly wish: string
  readonly items: number
  readonly bytes: number
  /** Of these, not here yet. */
  readonly missingBytes: number
}

/** @param isServing false when a command opened the store itself: then nobody else pins for it. */
export function pinMethods(owner: Owner, isServing: boolean): ControlMethods {
  const { trust } = owner
  return {
    async *'pin-add'(params, options) {
      const { wish } = WishParams.parse(params)
      const added = await measure(owner, wish, options)
      await mustFit(owner, added, options)
      await trust.update(record => ({ ...record, pins: [...new Set([...record.pins, wish])].toSorted() }))
      yield added
      yield* afterwards(owner, isServing, options)
    },
    async *'pin-rm'(params, options) {
      const { wish } = WishParams.parse(params)
      if (!trust.record.pins.includes(wish)) {
        throw new EdgeError('NOT_FOUND', `${wish} is not pinned by the operator: see tower pin ls`)
      }
      await trust.update(record => ({ ...record, pins: record.pins.filter(pin => pin !== wish) }))
      yield { wish }
      yield* afterwards(owner, isServing, options)
    },
    async *'pin-ls'(params) {
      const { target } = ListParams.parse(params)
      yield* owner.pins?.list({ target }) ?? []
    },
    async *'pin-status'() {
      yield pinReportOf(owner)
    },
    async *'pin-verify'(_params, options) {
      if (!owner.pins) throw nowhere()
      yield* owner.pins.verify(options)
    },
  }
}

export function pinReportOf({ trust, library, pins }: Pick<Owner, 'trust' | 'library' | 'pins'>): PinReport {
  const policies = library.releases().flatMap(({ dataset, current }) => {
    const { ipfs = false, s3 = false, paths } = current?.pin ?? {}
    return ipfs || s3 ? [{ dataset, ipfs, s3, paths: paths ?? null }] : []
  })
  const replicas = pins?.replicas()
  return { wishes: trust.record.pins, policies, targets: pins?.report() ?? [], ...(replicas && { replicas }) }
}

/** The node's own loop does it, or, where no node runs, this call. */
async function* afterwards(owner: Owner, isServing: boolean, options: Abortable): AsyncGenerator<unknown> {
  if (isServing) owner.pins?.wake()
  else yield* owner.pins?.once(options) ?? []
}

/** @throws EdgeError `DATASET_UNKNOWN`, `ITEM_UNKNOWN`, `REQUEST_INVALID` */
async function measure({ library }: Owner, wish: string, { signal }: Abortable): Promise<PinAdded> {
  const [, dataset] = /^([^/]+\/[^/]+)(?:\/.+)?$/.exec(wish) ?? []
  if (dataset === undefined) {
    throw new EdgeError(
      'REQUEST_INVALID',
      `${wish}: <dataset>, <dataset>/<path> or <dataset>/<folder>/ is needed`,
    )
  }
  const added = { wish, items: 0, bytes: 0, missingBytes: 0 }
  let after: string | undefined
  do {
    signal.throwIfAborted()
    const page = library.list({ dataset, limit: 1000, ...(after !== undefined && { after }) })
    for (const { path, expected, present } of page.items) {
      if (!isOperatorPin(wish, dataset, path)) continue
      added.items++
      added.bytes += expected
      added.missingBytes += expected - present
    }
    after = page.next ?? undefined
  } while (after !== undefined)
  if (added.items === 0) throw new EdgeError('ITEM_UNKNOWN', `no item of ${dataset} is meant by ${wish}`)
  return added
}

/** Before anything is promised (I4). @throws EdgeError `STORE_FULL`, `PIN_REFUSED`, each with the shortfall */
async function mustFit(
  { store, pins }: Owner,
  { bytes, missingBytes }: PinAdded,
  options: Abortable,
): Promise<void> {
  if (missingBytes > 0) (await store.reserve(missingBytes, 'pin'))[Symbol.dispose]()
  await pins?.mustHaveRoom(bytes, options)
}

function nowhere(): EdgeError {
  return new EdgeError('CONFIG_INVALID', 'there is nowhere to pin to: set TOWER_IPFS_API or TOWER_S3_URL')
}
