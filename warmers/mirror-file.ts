/**
 * One file of a hub's copy, through the staging area: what was brought of it for readers, heals or an
 * earlier fill is not fetched again (I9), and what comes now is theirs, too. What is put into the
 * repository is what its name says.
 */
import { mkdir, statfs } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { RepositoryStorage } from '../manifests/publish/storage.ts'
import { byHealth, reportUpstream } from './breaker.ts'
import { claimFile } from './bundle-claims.ts'
import { fetchSpans, type FetchTools } from './fetch-spans.ts'
import type { MirrorOptions } from './mirror.ts'
import type { RepositoryFile } from './repository-files.ts'
import { wantedWhole } from './shared-staging.ts'
import type { DigestCache } from './sources.ts'
import { bytesOf, cut, without } from './spans.ts'
import type { StagedRanges } from './staged-ranges.ts'
import type { Span, Upstream } from './upstream.ts'

export interface MirrorFileTools extends FetchTools {
  readonly cache: DigestCache
  readonly requestBytes: number
}

/** How long others wait for a file of which more is fetched, and what is fetched in that time. */
const TURN_MS = 2000
const TURN_BYTES_MIN = 2 * 1024 * 1024
const TURN_BYTES_MAX = 32 * 1024 * 1024
/** Per file: each is a file of the staging area. */
const REQUESTS_MAX = 1024

/** @throws EdgeError `UPSTREAM_…`, `STORE_FULL`; the signal's reason. What arrived is kept. */
export async function mirrorFile(
  file: RepositoryFile,
  tools: MirrorFileTools,
  storage: RepositoryStorage,
  { folder, reserveBytes }: MirrorOptions,
  options: Abortable,
): Promise<void> {
  const { staged } = tools
  const { path, sha256, sizeBytes } = file
  const whole = [{ offset: 0, length: sizeBytes }]
  let distrusted = bytesOf(staged.spans(path)) > 0
  await stageDirectory(file, tools)
  await requireRoom(folder, sizeBytes + bytesOf(without(whole, staged.spans(path))) + reserveBytes)
  for (let upstreams: readonly Upstream[] = byHealth(tools.upstreams); ; ) {
    await stageAll(file, { ...tools, upstreams }, options)
    try {
      await storage.add(
        found => {
          if (found !== sha256) throw new EdgeError('UPSTREAM_LIED', `${path}: the bytes hash to ${found}`)
          return path
        },
        stagedBytes(file, staged),
      )
      break
    } catch (error) {
      if (isEdgeError(error, 'CHUNK_ABSENT')) continue // found wrong meanwhile, and taken away
      if (!isEdgeError(error, 'UPSTREAM_LIED')) throw error
      await staged.discard(path, whole)
      // bytes kept from before a power cut may be wrong without anybody's fault: ask once more
      if (distrusted) distrusted = false
      else {
        reportUpstream(upstreams[0]!, 'lied')
        upstreams = upstreams.slice(1)
        if (upstreams.length === 0) throw error
      }
    }
  }
  wantedWhole(staged).delete(path) // the copy serves now
  using _mine = await claimFile(staged, path, options)
  await staged.drop(path, whole)
}

/** All of the file, as it is asked for. */
export function mirrorRequests(
  { sizeBytes }: Pick<RepositoryFile, 'sizeBytes'>,
  { requestBytes }: Pick<MirrorFileTools, 'requestBytes'>,
): Span[] {
  return cut({ offset: 0, length: sizeBytes }, Math.max(requestBytes, Math.ceil(sizeBytes / REQUESTS_MAX)))
}

/** In turns of a few seconds, with others between. */
async function stageAll(file: RepositoryFile, tools: MirrorFileTools, options: Abortable): Promise<void> {
  const { path, sizeBytes, dataset } = file
  const purpose = { dataset, reason: 'mirror' }
  const all = mirrorRequests(file, tools)
  let turnBytes = TURN_BYTES_MIN
  for (let from = 0; from < all.length; ) {
    const requests = all.slice(from, from + Math.ceil(turnBytes / all[0]!.length))
    const since = performance.now()
    {
      using _mine = await claimFile(tools.staged, path, options)
      await fetchSpans(tools, { path, fileBytes: sizeBytes, requests, purpose }, options)
    }
    from += requests.length
    const fittingBytes = (bytesOf(requests) / (performance.now() - since)) * TURN_MS
    turnBytes = Math.min(Math.max(fittingBytes, TURN_BYTES_MIN), TURN_BYTES_MAX)
    await nextTurn() // whoever waits for the file goes first
  }
}

/** It may have been fetched before, to plan. */
async function stageDirectory(
  { path, directory: { sha256, offset, size } }: RepositoryFile,
  { cache, staged }: MirrorFileTools,
): Promise<void> {
  const known = await cache.get(sha256)
  if (!known || bytesOf(without([{ offset, length: size }], staged.spans(path))) < size) return
  await using part = await staged.append(path, offset)
  await part.write(known)
}

async function* stagedBytes({ path, sizeBytes }: RepositoryFile, staged: StagedRanges) {
  for (let offset = 0; offset < sizeBytes; offset += TURN_BYTES_MIN)
    yield await staged.read(path, { offset, length: Math.min(TURN_BYTES_MIN, sizeBytes - offset) })
}

/** For what is staged, and its copy in the repository. */
async function requireRoom(folder: string, bytes: number): Promise<void> {
  await mkdir(folder, { recursive: true })
  const { bavail, bsize } = await statfs(folder)
  const short = bytes - bavail * bsize
  if (short > 0) throw new EdgeError('STORE_FULL', `the hub's copy is ${short} bytes short of room`)
}
