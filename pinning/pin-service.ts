/**
 * Keeps every pin target at what is wished, for as long as the node runs: a loop per target, so that
 * one that hangs holds up no other. Several Kubo hosts are replicas of each other.
 *
 * Each round asks the target what it keeps, pins what it lacks, lets go what nobody wishes, keeps the
 * repository view up to date beside the pins, and reads some of the pins back. A pin whose proof
 * fails is written again. Whatever goes wrong is told in the report and tried again, within fifteen
 * seconds while a target is away; nothing here is waited for by a reader (I6).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'
import type { Abortable } from '../manifests/extent.ts'
import { REPOSITORY_FOLDER } from './files-upstream.ts'
import { type GuardedTarget, guardedTarget } from './guarded-target.ts'
import { librarySource, type PinWorld, storedItem } from './library-source.ts'
import { openPinRecord, type PinCount, type PinRecord, type PinRow } from './pin-record.ts'
import type { PinFiles, PinTarget } from './pin-target.ts'
import { retryDelayMs } from './plan-pins.ts'
import { type PinSource, reconcile, type RoundProgress, type RoundReport } from './reconciler.ts'
import { type HostState, parseReplication, Replicas, type ReplicasReport } from './replicas.ts'
import { type KeptFile, keepFiles } from './repo-keeper.ts'

export interface PinServiceOptions extends PinWorld {
  /** Where `pins.db` is. */
  readonly folder: string
  readonly ipfsApi: readonly string[]
  /** Copies over these hosts, `1-2`; absent: on every one. */
  readonly ipfsReplicas?: string | undefined
  readonly s3Url?: string | undefined
  /** What an empty node needs beside content: metadata and manifests, by path. */
  readonly view: () => readonly KeptFile[]
  /** Keeps a copy of the node's own records there (`snapshot.ts`). Asked after a round with S3. */
  readonly snapshot?: (files: PinFiles, options: Abortable) => Promise<unknown>
  readonly now?: () => number
  /** Between two rounds in which nothing failed. */
  readonly lookMs?: number
  /** From when on others stand in for a Kubo host that is away. */
  readonly standInAfterMs?: number
  readonly onEvent?: (event: PinEvent) => void
}

export type PinEvent =
  | ({ readonly type: 'round' } & RoundReport)
  | ({ readonly type: 'progress' } & RoundProgress)
  | { readonly type: 'failed'; readonly target: string; readonly code: string; readonly message: string }
  | { readonly type: 'disproved'; readonly target: string; readonly root: string; readonly message: string }

export interface PinTargetReport {
  readonly target: string
  readonly kind: 'ipfs' | 's3'
  readonly state: 'not asked yet' | 'up' | 'down' | 'refused'
  readonly error: string | null
  /** When the last round ended well; ISO 8601. */
  readonly roundAt: string | null
  readonly progress: RoundProgress | null
  readonly pins: readonly Omit<PinCount, 'target'>[]
  /** Since the start. */
  readonly provedBytes: number
  readonly disproved: number
  /** Found unexpectedly unpinned, and pinned again. */
  readonly lost: number
  /** Rounds that failed in a row. */
  readonly failures: number
}

export interface VerifyProgress {
  readonly target: string
  readonly proved: number
  readonly total: number
  readonly bytesRead: number
  readonly failed: number
  /** What the last one lacks, if it does. */
  readonly finding?: { readonly root: string; readonly why: string; readonly message: string }
}

export interface PinService extends AsyncDisposable {
  readonly targets: readonly GuardedTarget[]
  /** Until the signal aborts. @param options `isAllowed`: false while the battery is too low for pinning. */
  run(options: Abortable & { readonly isAllowed: () => boolean }): Promise<void>
  /** Wishes have changed: look now. */
  wake(): void
  /** One round with every target, now. */
  once(options: Abortable): AsyncGenerator<PinEvent>
  report(): readonly PinTargetReport[]
  /** Of the pins in Kubo; undefined with fewer than two hosts. */
  replicas(): ReplicasReport | undefined
  /** Targets that are away are not asked. @throws EdgeError `PIN_REFUSED` with the shortfall in bytes */
  mustHaveRoom(bytes: number, options: Abortable): Promise<void>
  list(request: { readonly target?: string | undefined }): Generator<PinRow>
  /** Reads back all that is pinned; what fails is pinned anew in the next round. */
  verify(options: Abortable): AsyncGenerator<VerifyProgress>
}

const LOOK_MS = 30_000
const STAND_IN_AFTER_MS = 60_000
const CALL_MS = 5000
const IMPORT_MS = 3 * 60_000
const S3_CALL_MS = 30_000
const S3_CONCURRENCY = 16
/** Read back at the end of a round, of what was not proven within a day. */
const PROVED_BYTES = 16 * 1024 * 1024
const PROVED_ITEMS = 64
const ROWS_AT_ONCE = 500
const DAY_MS = 86_400_000

export function openPinService(options: PinServiceOptions): PinService {
  return new Service(options)
}

interface Tended {
  readonly guard: GuardedTarget
  state: PinTargetReport['state']
  error: string | null
  /** Since when it is away, without a pause. */
  awaySinceMs: number | undefined
  roundAtMs: number | undefined
  progress: RoundProgress | null
  provedBytes: number
  disproved: number
  lost: number
  failures: number
}

class Service implements PinService {
  readonly #options: PinServiceOptions
  readonly #record: PinRecord
  readonly #tended: readonly Tended[]
  readonly #now: () => number
  readonly #replicas: Replicas
  #wake = new AbortController()
  #snapshotDay = -1
  #running: Promise<unknown> | undefined
  readonly #stop = new AbortController()

  constructor(options: PinServiceOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#record = openPinRecord(join(options.folder, 'pins.db'))
    this.#tended = guardsOf(options).map(guard => ({
      guard,
      state: 'not asked yet',
      error: null,
      awaySinceMs: undefined,
      roundAtMs: undefined,
      progress: null,
      provedBytes: 0,
      disproved: 0,
      lost: 0,
      failures: 0,
    }))
    this.#record.retain(this.#tended.map(({ guard }) => guard.name))
    this.#replicas = new Replicas({
      hosts: this.#tended.filter(({ guard }) => guard.kind === 'ipfs').map(({ guard }) => guard.name),
      replication: parseReplication(options.ipfsReplicas, options.ipfsApi.length),
      record: this.#record,
      stateOf: name => this.#stateOf(name),
    })
  }

  get targets() {
    return this.#tended.map(({ guard }) => guard)
  }

  async run(options: Parameters<PinService['run']>[0]): Promise<void> {
    const signal = AbortSignal.any([options.signal, this.#stop.signal])
    const { isAllowed } = options
    this.#running = Promise.all(this.#tended.map(tended => this.#tend(tended, { signal, isAllowed })))
    await this.#running
  }

  wake(): void {
    this.#wake.abort()
    this.#wake = new AbortController()
  }

  async *once(options: Abortable): AsyncGenerator<PinEvent> {
    for (const tended of this.#tended) {
      const events: PinEvent[] = []
      const finished = this.#round(tended, options, event => events.push(event))
      await finished
      yield* events
    }
  }

  report(): readonly PinTargetReport[] {
    const counts = this.#record.summary()
    return this.#tended.map(({ guard: { name, kind }, roundAtMs, ...tended }) => ({
      target: name,
      kind,
      state: tended.state,
      error: tended.error,
      progress: tended.progress,
      provedBytes: tended.provedBytes,
      disproved: tended.disproved,
      lost: tended.lost,
      failures: tended.failures,
      roundAt: roundAtMs === undefined ? null : new Date(roundAtMs).toISOString(),
      pins: counts
        .filter(({ target }) => target === name)
        .map(({ status, pins, bytes, provedAtMs }) => ({ status, pins, bytes, provedAtMs })),
    }))
  }

  replicas(): ReplicasReport | undefined {
    return this.#options.ipfsApi.length < 2 ? undefined : this.#replicas.report
  }

  async mustHaveRoom(bytes: number, options: Abortable): Promise<void> {
    const rooms = new Map<string, number>()
    for (const { guard } of this.#tended) {
      const roomBytes = await guard.use(target => target.roomBytes(options), options).catch(() => undefined)
      if (roomBytes !== undefined) rooms.set(guard.name, roomBytes)
    }
    const [short] = this.#replicas.shortfalls(bytes, rooms)
    if (!short) return
    throw new EdgeError('PIN_REFUSED', `${short.where} ${short.bytes} bytes short of room for ${bytes}`)
  }

  *list({ target }: { readonly target?: string | undefined }): Generator<PinRow> {
    for (const { guard } of this.#tended) {
      if (target !== undefined && guard.name !== target) continue
      for (let after = ''; ; ) {
        const rows = this.#record.page(guard.name, after, ROWS_AT_ONCE)
        yield* rows
        if (rows.length < ROWS_AT_ONCE) break
        after = rows.at(-1)?.root ?? ''
      }
    }
  }

  async *verify(options: Abortable): AsyncGenerator<VerifyProgress> {
    for (const tended of this.#tended) {
      const { name } = tended.guard
      const rows = [...this.list({ target: name })].filter(({ status }) => status === 'pinned')
      const counts = { target: name, proved: 0, total: rows.length, bytesRead: 0, failed: 0 }
      for (const row of rows) {
        const { bytesRead, failure } = await this.#prove(tended, row, options)
        counts.bytesRead += bytesRead
        if (failure) counts.failed++
        else counts.proved++
        const finding = failure && { root: row.root, why: row.why, message: failure.message }
        yield { ...counts, ...(finding && { finding }) }
      }
      yield counts
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('pinning ends'))
    await this.#running?.catch(() => undefined)
    this.#record[Symbol.dispose]()
  }

  async #tend(tended: Tended, { signal, isAllowed }: Parameters<PinService['run']>[0]): Promise<void> {
    const tell = this.#options.onEvent ?? (() => {})
    while (!signal.aborted) {
      const { signal: woken } = this.#wake // also while the round runs
      if (isAllowed()) await this.#round(tended, { signal }, tell)
      if (signal.aborted) return
      const { failures } = tended
      const pauseMs = failures > 0 ? retryDelayMs(failures) : (this.#options.lookMs ?? LOOK_MS)
      const until = AbortSignal.any([signal, woken])
      await sleep(pauseMs, undefined, { signal: until }).catch(() => undefined)
    }
  }

  /** Never throws: what went wrong is in the report. */
  async #round(tended: Tended, options: Abortable, tell: (event: PinEvent) => void): Promise<void> {
    const { guard } = tended
    const source = this.#sourceFor(guard)
    const onProgress = (progress: RoundProgress) => {
      tended.progress = progress
      tell({ type: 'progress', ...progress })
    }
    try {
      const round = await guard.use(async target => {
        const tools = { target, source, record: this.#record, nowMs: this.#now, onProgress }
        const report = await reconcile(tools, options)
        if (report.pinned > 0) await target.settle?.(options)
        await keepFiles(target.files, REPOSITORY_FOLDER, this.#options.view(), options)
        if (guard.kind === 's3') await this.#snapshot(target.files, options)
        return report
      }, options)
      tended.state = 'up'
      tended.error = null
      tended.awaySinceMs = undefined
      tended.failures = 0
      tended.lost += round.lost
      tended.roundAtMs = this.#now()
      tell({ type: 'round', ...round })
      if (guard.kind === 'ipfs') await this.#replicas.count()
      await this.#proveSome(tended, options, tell)
    } catch (error) {
      if (options.signal.aborted) return
      const { code, message } = isEdgeError(error)
        ? error
        : { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) }
      tended.state = code === 'PIN_REFUSED' ? 'refused' : 'down'
      tended.awaySinceMs = tended.state === 'down' ? (tended.awaySinceMs ?? this.#now()) : undefined
      tended.error = message
      tended.failures++
      tell({ type: 'failed', target: guard.name, code, message })
    } finally {
      tended.progress = null
    }
  }

  #sourceFor({ name, kind }: GuardedTarget): PinSource {
    const source = librarySource(this.#options, kind)
    if (kind !== 'ipfs') return source
    return { ...source, wanted: async options => this.#replicas.share(name, await source.wanted(options)) }
  }

  #stateOf(name: string): HostState {
    const { state, awaySinceMs } = this.#tended.find(({ guard }) => guard.name === name)!
    if (state === 'refused') return 'full'
    const standInAfterMs = this.#options.standInAfterMs ?? STAND_IN_AFTER_MS
    return awaySinceMs !== undefined && this.#now() - awaySinceMs >= standInAfterMs ? 'away' : 'there'
  }

  async #snapshot(files: PinFiles, options: Abortable): Promise<void> {
    const day = Math.floor(this.#now() / DAY_MS)
    if (day === this.#snapshotDay) return
    await this.#options.snapshot?.(files, options)
    this.#snapshotDay = day
  }

  async #proveSome(tended: Tended, options: Abortable, tell: (event: PinEvent) => void): Promise<void> {
    let left = PROVED_BYTES
    for (const row of this.#record.leastProven(tended.guard.name, PROVED_ITEMS)) {
      const isRecent = row.provedAtMs !== null && this.#now() - row.provedAtMs < DAY_MS
      if (isRecent || left <= 0 || options.signal.aborted) return
      const { bytesRead, failure } = await this.#prove(tended, row, options)
      left -= Math.max(bytesRead, 1)
      if (failure)
        tell({ type: 'disproved', target: tended.guard.name, root: row.root, message: failure.message })
    }
  }

  /** @throws EdgeError `PIN_TARGET_DOWN` */
  async #prove(
    tended: Tended,
    row: PinRow,
    options: Abortable,
  ): Promise<{ bytesRead: number; failure?: EdgeError }> {
    const item = storedItem(this.#options.store, row.root, row.sizeBytes)
    if (!item) return { bytesRead: 0 } // not whole here: nothing to compare with, or to write anew
    try {
      const { bytesRead } = await tended.guard.use(target => target.prove(item, options), options)
      tended.provedBytes += bytesRead
      await this.#record.put([{ ...row, provedAtMs: this.#now() }])
      return { bytesRead }
    } catch (error) {
      if (!isEdgeError(error, 'CHUNK_ABSENT', 'CHUNK_CORRUPT', 'CATALOG_INVALID')) throw error
      tended.disproved++
      await this.#record.put([{ ...row, status: 'unexpectedly-unpinned', error: error.message }])
      await this.#pinAnew(tended, row, options)
      return { bytesRead: 0, failure: error }
    }
  }

  async #pinAnew(tended: Tended, row: PinRow, options: Abortable): Promise<void> {
    const item = storedItem(this.#options.store, row.root, row.sizeBytes)
    if (!item) return
    const [outcome] = await tended.guard.use(
      target => target.pin([item], { ...options, anew: true }),
      options,
    )
    const failed = outcome?.error
    await this.#record.put([
      failed
        ? { ...row, status: 'failed', attempts: row.attempts + 1, error: failed.message, provedAtMs: null }
        : { ...row, status: 'pinned', error: null, provedAtMs: null },
    ])
  }
}

function guardsOf({ ipfsApi, s3Url }: PinServiceOptions): GuardedTarget[] {
  const guards = ipfsApi.map(apiUrl => {
    const name = `kubo@${new URL(apiUrl).host}`
    return guardedTarget({ name, kind: 'ipfs' }, async (): Promise<PinTarget> => {
      const { openKuboTarget } = await import('./kubo-target.ts')
      return await openKuboTarget({ apiUrl, name, callMs: CALL_MS, importMs: IMPORT_MS })
    })
  })
  if (s3Url === undefined) return guards
  const s3 = guardedTarget({ name: 's3', kind: 's3' }, async (options): Promise<PinTarget> => {
    const { openS3Target } = await import('./s3-target.ts')
    const limits = { region: 'us-east-1', callMs: S3_CALL_MS, concurrency: S3_CONCURRENCY }
    return await openS3Target({ url: s3Url, ...limits }, options)
  })
  return [...guards, s3]
}
