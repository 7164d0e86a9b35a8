/**
 * What a fill of a hub would put on the wire: whole files, not what its store lacks. Asks what is new,
 * and fetches directories, catalogs and older manifests, which are kept and not fetched again.
 */
import type { Abortable } from '../manifests/extent.ts'
import { folderStorage } from '../manifests/publish/folder-storage.ts'
import { type FillRequest, planOnce, type PlanNews, wireMeter } from './fill-once.ts'
import { wantFiles, waysOf, type MirrorOptions } from './mirror.ts'
import { mirrorRequests } from './mirror-file.ts'
import { added, connectionsFor, type DatasetPlan, type PlanReport, type WireBytes } from './plan-report.ts'
import { remembered } from './range-memory.ts'
import { refresh } from './refresh.ts'
import type { RepositoryFile } from './repository-files.ts'
import { bytesOf, without } from './spans.ts'
import { wholeWireOf, wireOf } from './upstream.ts'

type Request = Omit<FillRequest, 'queue'>

const NOTHING: WireBytes = { down: 0, up: 0, requests: 0 }

/** @throws EdgeError as `refresh` and `planOnce` */
export async function planMirror(
  wish: Request,
  { folder }: Pick<MirrorOptions, 'folder'>,
): Promise<PlanReport & PlanNews> {
  const request = { ...wish, upstreams: remembered(wish.upstreams, wish.rangeMemory) }
  const abortable: Abortable = { signal: request.signal }
  const spent = wireMeter(request)
  const refreshed = await refresh(request, abortable)
  const storage = folderStorage(folder)
  const files = new Map((await wantFiles(request, storage)).map(file => [file.path, file]))
  const report = await planOnce({ ...request, skipRefresh: true })
  for (const { current, next } of request.releases.releases()) {
    const newest = next ?? current
    const ways = newest && (await waysOf(newest, request, storage, abortable))
    if (ways?.isNew) for (const file of ways.deltas) files.set(file.path, file)
  }
  const lacking: { readonly file: RepositoryFile; readonly wire: WireBytes }[] = []
  for (const file of files.values()) {
    if ((await storage.size(file.path)) !== file.sizeBytes)
      lacking.push({ file, wire: await wireOfFile(file, request) })
  }
  const sumOf = (dataset: string, folderOf = '') =>
    lacking
      .filter(({ file }) => file.dataset === dataset && file.path.startsWith(folderOf))
      .reduce((sum, { wire }) => added(sum, wire), NOTHING)
  const datasets = report.datasets.map((plan): DatasetPlan => {
    const { catalog, delta, frame } = plan.byReason
    const byReason = {
      catalog: { ...catalog, down: 0 },
      delta: { ...delta, down: sumOf(plan.dataset, 'deltas/').down },
      frame: { ...frame, down: sumOf(plan.dataset, 'packs/').down },
    }
    return { ...plan, wire: sumOf(plan.dataset), byReason }
  })
  const asking = { ...refreshed.idle, requests: 2 }
  // one file after another
  const requestsAtOnce = Math.max(0, ...lacking.map(({ wire }) => wire.requests))
  const connecting = connectionsFor(requestsAtOnce, request.upstreams[0]?.cost)
  const wire = datasets.reduce((sum, plan) => added(sum, plan.wire), added(asking, connecting))
  return { ...report, datasets, wire, refresh: asking, spent: spent(), refreshed }
}

async function wireOfFile(file: RepositoryFile, tools: Request): Promise<WireBytes> {
  const { path, sizeBytes, directory } = file
  const { cost, ranges } = tools.upstreams[0]!
  let held = tools.staged.spans(path)
  const place = [{ offset: directory.offset, length: directory.size }]
  if (bytesOf(without(place, held)) === directory.size && (await tools.cache.get(directory.sha256)))
    held = [...held, ...place].toSorted((a, b) => a.offset - b.offset)
  const lacking = mirrorRequests(file, tools).flatMap(span => without([span], held))
  if (lacking.length === 0) return NOTHING
  if (!ranges) return { ...wholeWireOf(cost, path, lacking[0]!.offset, sizeBytes), requests: 1 }
  return lacking
    .map(span => ({ ...wireOf(cost, path, span, sizeBytes), requests: 1 }))
    .reduce((sum, one) => added(sum, one), NOTHING)
}
