/**
 * A static delta as the planner sees it: its parts are bundles. The catalog's own parts come with
 * the directory. Items can be named, and their extents planned, once the new catalog is here.
 */
import type { Cid } from '../manifests/cid.ts'
import { type ReadDelta, StaticDelta } from '../manifests/delta/delta.ts'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable, DagNode } from '../manifests/extent.ts'
import { deltaPath, type DeltaRef, type Manifest } from '../manifests/manifest.ts'
import { readCatalog, olderContent, type NodeStore, type OlderContent } from './item-extents.ts'
import type { ContentStore } from '../node/store/store.ts'
import type { ReadBase } from './plan-fill.ts'
import { loadDirectory, type OpenSource, type SourceTools } from './sources.ts'

export interface OpenDelta extends OpenSource {
  readonly from: number
  /**
   * Makes the items' extents known, from the new catalog.
   * @returns the nodes above them. @throws EdgeError `CHUNK_ABSENT` when the catalog is not here, `DELTA_INVALID`
   */
  nameItems(options: Abortable): Promise<readonly DagNode[]>
  /**
   * One extent, verified, out of a part whose bytes are staged.
   * @throws EdgeError `DELTA_INVALID`, `DELTA_BASE_ABSENT`, `CHUNK_ABSENT` when they are not
   */
  rebuild(cid: Cid, readBase: ReadBase): Promise<Uint8Array>
}

export interface DeltaTools extends SourceTools {
  readonly store: NodeStore & Pick<ContentStore, 'readRange'>
}

/**
 * @param older releases whose content may be here.
 * @param readOlder for bases that are not: what other deltas make of what is.
 * @throws EdgeError `DELTA_INVALID`, `UPSTREAM_…`
 */
export async function openDelta(
  ref: DeltaRef,
  manifest: Manifest,
  older: readonly Manifest[],
  tools: DeltaTools,
  options: Abortable,
  readOlder: ReadBase = baseAbsent,
): Promise<OpenDelta> {
  const path = deltaPath(ref.sha256)
  const head = await loadDirectory(path, ref.size, ref.directory, tools, options)
  const delta = await StaticDelta.open(head, ref.directory)
  const content = await olderOf(delta, older, tools.store, options)
  const headEnd = ref.directory.offset + ref.directory.size
  const inTurn = turns()
  let isNamed = false

  async function rebuild(cid: Cid, readPart: ReadDelta, readBase: ReadBase): Promise<Uint8Array> {
    const read = async (offset: number, length: number) =>
      offset + length <= headEnd
        ? head.subarray(offset - ref.directory.offset, offset - ref.directory.offset + length)
        : readPart(offset, length)
    return await delta.rebuild(cid, read, async ({ key, sizeBytes }, offset, length) => {
      const base = content.extentOfKey(key, sizeBytes)
      if (!base) throw new EdgeError('DELTA_BASE_ABSENT', `base ${key} was never here`)
      try {
        return await readBase(base, offset, length)
      } catch (error) {
        if (!isEdgeError(error, 'CHUNK_ABSENT', 'CHUNK_CORRUPT')) throw error
        return await readOlder(base, offset, length)
      }
    })
  }

  return {
    kind: 'delta',
    from: ref.from,
    path,
    fileBytes: ref.size,
    nodes: nodesOfCatalog(delta, manifest, content),
    async nameItems(more) {
      if (isNamed) return []
      const nodes = delta.nameItems(await readCatalog(tools.store, manifest, more), content.extentsOfRoot)
      isNamed = true
      return nodes
    },
    bundleOf(cid) {
      const recipe = delta.recipeOf(cid)
      if (!recipe) return undefined
      const bases: Cid[] = []
      for (const { key, sizeBytes } of recipe.bases) {
        const base = content.extentOfKey(key, sizeBytes)
        if (!base) return undefined
        bases.push(base)
      }
      const { offset, length } = recipe.span
      return { index: offset, span: { offset, length: offset + length <= headEnd ? 0 : length }, bases }
    },
    rebuild: (cid, readBase) =>
      rebuild(cid, (offset, length) => tools.staged.read(path, { offset, length }), readBase),
    async *extentsOf(partOffset, stored, cids, readBase) {
      const read = async (offset: number, length: number) =>
        stored.subarray(offset - partOffset, offset - partOffset + length)
      // the last part is kept open: taking turns, nobody else's part pushes it out
      using _turn = await inTurn()
      for (const cid of cids) yield { cid, bytes: await rebuild(cid, read, readBase) }
    },
  }
}

const baseAbsent: ReadBase = cid => Promise.reject(new EdgeError('DELTA_BASE_ABSENT', `${cid} is not here`))

async function olderOf(
  delta: StaticDelta,
  older: readonly Manifest[],
  store: NodeStore,
  options: Abortable,
): Promise<OlderContent> {
  const wanted = new Set(delta.bases.map(({ key }) => key))
  const catalogs = older.map(({ catalog }) => ({ root: catalog.root, sizeBytes: catalog.size }))
  // mostly all bases are here, and the store knows them: then no older catalog need be read
  const here = olderContent(store, catalogs, wanted)
  if (wanted.values().every(key => here.extentOfKey(key, 0) !== undefined)) return here
  const items = [...catalogs]
  for (const manifest of older) {
    try {
      for (const { root, sizeBytes } of await readCatalog(store, manifest, options))
        items.push({ root, sizeBytes })
    } catch (error) {
      if (!isEdgeError(error)) throw error // an older catalog that is damaged or gone is of no use, no more
    }
  }
  return olderContent(store, items, wanted)
}

function nodesOfCatalog(
  delta: StaticDelta,
  { catalog }: Manifest,
  content: OlderContent,
): readonly DagNode[] {
  try {
    return delta.nameCatalog({ root: catalog.root, sizeBytes: catalog.size }, content.extentsOfRoot)
  } catch (error) {
    if (isEdgeError(error, 'DELTA_BASE_ABSENT')) return [] // its nodes are in the packs
    throw error
  }
}

/** One after another. */
function turns(): () => Promise<Disposable> {
  let last: Promise<void> = Promise.resolve()
  return async () => {
    const before = last
    const mine = Promise.withResolvers<void>()
    last = mine.promise
    await before
    return { [Symbol.dispose]: () => mine.resolve() }
  }
}
