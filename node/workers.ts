/**
 * Keeps the workers (`worker-main.ts`) running beside the owner: started, restarted when they die,
 * ended with it. A worker that dies takes the connections that it was serving with it, nothing else.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Restarts } from './restarts.ts'
import type { Cid } from '../manifests/cid.ts'
import { sha256Of } from '../manifests/digest.ts'
import type { ChunkRef } from '../manifests/extent.ts'
import type { MergedMetrics, Snapshot } from './http/merged-metrics.ts'
import type { ListenAt } from './http/server.ts'
import type { Library, OpenItem } from './library.ts'

export interface WorkerSettings {
  readonly folder: string
  readonly warmFolder: string
  readonly hotBytesMax: number
  readonly warmBytesMax: number
  readonly reserveBytes: number
  readonly memoryBytesMax: number
  readonly drainMs: number
  readonly logLevel: string
  readonly at: ListenAt
}

/** The same as a worker gets them: with where the owner takes what is not for workers. */
export interface WorkerStart extends WorkerSettings {
  readonly ownerSocket: string
}

export type WorkerMessage =
  | { readonly type: 'ready' }
  /** `<dataset>/<path>` of what was read in the last second. */
  | { readonly type: 'read'; readonly items: readonly string[] }
  /** All that it has counted so far. */
  | { readonly type: 'counted'; readonly metrics: Snapshot }
  /** A chunk failed its proof there. */
  | ({ readonly type: 'heal'; readonly id: number; readonly extent: Cid; readonly offset: number } & ChunkRef)

/** The answer to `heal`: base64, or nothing when it cannot be had now. */
export interface OwnerMessage {
  readonly id: number
  readonly bytes?: string
}

export interface WorkersOptions {
  readonly count: number
  readonly settings: WorkerSettings
  /** The owner's server. */
  readonly server: Server
  /** Folder for a socket whose path in the data folder would be too long. */
  readonly temporary: string
  /** A listening socket of this process that all workers share; without it each opens the port. */
  readonly fd?: number | undefined
  readonly library: Pick<Library, 'open'>
  /** Told of every item that was read in a worker. */
  readonly onAsked?: (item: OpenItem) => void
  /** Reads the chunk in the owner, heals it if it fails there too. */
  readonly heal?: (extent: Cid, offset: number, chunk: ChunkRef) => Promise<Buffer>
  /** Takes what the workers count. */
  readonly counts?: Pick<MergedMetrics, 'note' | 'ended'>
  onDeath(pid: number | undefined, why: string): void
}

/**
 * Starts them beside a node's server that listens at `at` (with `reusePort`, or on a shared `fd`).
 * Resolves when all serve.
 */
export async function startWorkers(
  options: WorkersOptions,
): Promise<AsyncDisposable & { readonly pids: readonly number[] }> {
  await using stack = new AsyncDisposableStack()
  const ownerSocket = ownerSocketOf(options.settings.folder, options.temporary)
  stack.use(await openOwnerSocket(options.server, ownerSocket))
  const workers = stack.use(
    await Workers.start({ ...options, settings: { ...options.settings, ownerSocket } }),
  )
  const kept = stack.move()
  return {
    get pids() {
      return workers.pids
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

const MAIN = fileURLToPath(new URL('./worker-main.ts', import.meta.url))
const RESTARTS = { msMin: 100, msMax: 10_000 }
const SHARED_FD = 3

type StartOptions = Omit<WorkersOptions, 'settings'> & { readonly settings: WorkerStart }

class Workers implements AsyncDisposable {
  readonly #options: StartOptions
  readonly #children = new Set<ChildProcess>()
  readonly #restarts = new Restarts(RESTARTS)
  #stopping = false

  private constructor(options: StartOptions) {
    this.#options = options
  }

  /** Resolves when all of them serve. */
  static async start(options: StartOptions): Promise<Workers> {
    const workers = new Workers(options)
    await Promise.all(Array.from({ length: options.count }, () => workers.#start(RESTARTS.msMin)))
    return workers
  }

  get pids(): number[] {
    return [...this.#children].flatMap(({ pid }) => pid ?? [])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true
    this.#restarts[Symbol.dispose]()
    await Promise.all(
      [...this.#children].map(async child => {
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        await ended
      }),
    )
  }

  #start(restartMs: number): Promise<void> {
    const { settings, fd } = this.#options
    const at: ListenAt = fd === undefined ? settings.at : { fd: SHARED_FD }
    const child = fork(MAIN, [JSON.stringify({ ...settings, at })], {
      stdio: ['ignore', 'inherit', 'inherit', ...(fd === undefined ? [] : [fd]), 'ipc'],
    })
    this.#children.add(child)
    const startedAt = performance.now()
    const ready = Promise.withResolvers<void>()
    child.on('message', (message: WorkerMessage) => {
      if (message.type === 'ready') ready.resolve()
      else if (message.type === 'read') this.#used(message.items)
      else if (message.type === 'counted') this.#options.counts?.note(child.pid ?? 0, message.metrics)
      else void this.#heal(child, message)
    })
    child.once('exit', (code, signal) => {
      this.#children.delete(child)
      void this.#options.counts?.ended(child.pid ?? 0)
      ready.resolve() // the owner serves meanwhile
      if (this.#stopping) return
      this.#options.onDeath(child.pid, signal ?? `exit ${code}`)
      this.#restarts.after(performance.now() - startedAt, restartMs, nextMs => void this.#start(nextMs))
    })
    return ready.promise
  }

  async #heal(child: ChildProcess, message: Extract<WorkerMessage, { type: 'heal' }>): Promise<void> {
    const { id, extent, offset, digest, sizeBytes } = message
    const bytes = await this.#options.heal?.(extent, offset, { digest, sizeBytes }).catch(() => undefined)
    const answer = bytes ? { id, bytes: bytes.toString('base64') } : { id }
    if (child.connected) child.send(answer satisfies OwnerMessage)
  }

  /** To the owner's tiers it counts as if read here. */
  #used(items: readonly string[]): void {
    for (const name of items) {
      const [scope, dataset, ...path] = name.split('/')
      try {
        const item = this.#options.library.open(`${scope}/${dataset}`, path.join('/'))
        item.used()
        this.#options.onAsked?.(item)
      } catch {
        // gone or denied since
      }
    }
  }
}

/**
 * The door that workers hand requests through: connections on a socket in the data folder, answered by
 * the owner's own server.
 */
async function openOwnerSocket(server: Server, path: string): Promise<AsyncDisposable> {
  await rm(path, { force: true }) // of an owner that was killed; the store's lock says there is no other
  const door = createServer(socket => void server.emit('connection', socket))
  door.listen(path)
  await once(door, 'listening')
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(door, 'close')
      door.close()
      await closed
    },
  }
}

/** @returns a path short enough for a socket (108 bytes). */
function ownerSocketOf(folder: string, temporary: string): string {
  const path = join(folder, 'workers.sock')
  return Buffer.byteLength(path) < 100
    ? path
    : join(temporary, `towerlight-${sha256Of(folder).slice(0, 16)}.sock`)
}
