/**
 * Keeps fill workers (`fill-worker.ts`) running beside the owner: started, restarted when they die,
 * ended with it. A worker that is killed takes nothing with it but what was in its sockets: its
 * batches go on in the owner at once, and its jobs in Redis are taken up by others within 10 s.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Restarts } from '../node/restarts.ts'
import type { Via } from './batch-board.ts'
import type { BullAddress, JobData, JobEnd } from './bull-job.ts'
import { throughWorker, WorkerReads, type FromWorker } from './worker-upstream.ts'
import type { Upstream } from './upstream.ts'

export interface FillWorkerSettings extends BullAddress {
  /** Batches at a time, in all of them. */
  readonly concurrency: number
  readonly processes: number
}

export interface FillWorkers extends AsyncDisposable {
  readonly pids: readonly number[]
  /** Those that take jobs. */
  readonly ready: number
}

/** Runs the batch that a worker was given, reading by its way. */
export type RunFor = (executor: string, job: JobData, via: Via) => Promise<JobEnd>

const MAIN = fileURLToPath(new URL('./fill-worker.ts', import.meta.url))
const RESTARTS = { msMin: 500, msMax: 30_000 }
const STOP_MS = 2000

export function startFillWorkers(settings: FillWorkerSettings, run: RunFor): FillWorkers {
  return new Workers(settings, run)
}

class Workers implements FillWorkers {
  readonly #settings: FillWorkerSettings
  readonly #run: RunFor
  readonly #children = new Set<ChildProcess>()
  readonly #ready = new Set<ChildProcess>()
  readonly #restarts = new Restarts(RESTARTS)
  #stopping = false

  constructor(settings: FillWorkerSettings, run: RunFor) {
    this.#settings = settings
    this.#run = run
    for (let started = 0; started < settings.processes; started++) this.#start(RESTARTS.msMin)
  }

  get pids() {
    return [...this.#children].flatMap(({ pid }) => pid ?? [])
  }

  get ready() {
    return this.#ready.size
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true
    this.#restarts[Symbol.dispose]()
    await Promise.all(
      [...this.#children].map(async child => {
        const ended = once(child, 'exit')
        child.disconnect() // it ends then
        const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
        await ended
        clearTimeout(timer)
      }),
    )
  }

  #start(restartMs: number): void {
    const startedAt = performance.now()
    const child = fork(MAIN, [], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    })
    this.#children.add(child)
    child.send(this.#settings, () => {}) // not as an argument: there may be a password in it
    const reads = new WorkerReads(message => {
      if (child.connected) child.send(message, () => {}) // it has gone: `exit` follows
    })
    const ways = new WeakMap<Upstream, Upstream>()
    const via: Via = upstreams =>
      upstreams.map(upstream => {
        const way = ways.get(upstream) ?? throughWorker(upstream, reads)
        ways.set(upstream, way)
        return way
      })
    child.on('message', (message: FromWorker) => {
      if (message.type === 'ready') this.#ready.add(child)
      else if (message.type === 'take') void this.#take(child, message, via)
      else reads.hear(message)
    })
    child.once('error', () => undefined) // `exit` or `disconnect` follows
    child.once('disconnect', () => this.#gone(child, reads))
    child.once('exit', () => {
      this.#gone(child, reads)
      this.#children.delete(child)
      if (this.#stopping) return
      this.#restarts.after(performance.now() - startedAt, restartMs, nextMs => this.#start(nextMs))
    })
  }

  #gone(child: ChildProcess, reads: WorkerReads): void {
    this.#ready.delete(child)
    reads.died()
  }

  async #take(child: ChildProcess, { id, job }: FromWorker & { type: 'take' }, via: Via): Promise<void> {
    const end = await this.#run(`worker ${child.pid}`, job, via)
    if (child.connected) child.send({ type: 'ran', id, end }, () => {})
  }
}
