/**
 * Renders pictures in child processes that are bounded in pixels, time and memory, and killed when
 * they pass a bound: sharp's own `timeout()` does not stop every encoder.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import pLimit from 'p-limit'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import type { RenderAnswer, RenderJob } from './render-child.ts'
import type { Rendition } from './rendition.ts'

export interface RenderLimits {
  readonly sourceBytesMax: number
  readonly pixelsMax: number
  readonly renderMs: number
  readonly childBytesMax: number
  /** Children at work at once; each may use a core. */
  readonly children: number
  /** Jobs waiting; one more is refused as `OVERLOADED`. */
  readonly waiting: number
}

export const RENDER_LIMITS: RenderLimits = {
  sourceBytesMax: 32 * 1024 * 1024,
  pixelsMax: 25_000_000,
  renderMs: 10_000,
  childBytesMax: 400 * 1024 * 1024,
  children: 1,
  waiting: 32,
}

const CHILD = fileURLToPath(new URL('./render-child.ts', import.meta.url))
const MEMORY_LOOK_MS = 25
const PAGE_BYTES = 4096

export class Renderer implements AsyncDisposable {
  readonly #limits: RenderLimits
  readonly #limit: ReturnType<typeof pLimit>
  readonly #idle: ChildProcess[] = []
  readonly #all = new Set<ChildProcess>()

  constructor(limits: RenderLimits = RENDER_LIMITS) {
    this.#limits = limits
    this.#limit = pLimit(limits.children)
  }

  /**
   * @throws EdgeError `REQUEST_INVALID` when the picture is damaged, hostile or past a bound,
   * `OVERLOADED` when too many wait.
   */
  async render(source: Uint8Array, rendition: Rendition, { signal }: Abortable): Promise<Buffer> {
    if (source.length > this.#limits.sourceBytesMax) {
      throw new EdgeError('REQUEST_INVALID', `the picture has more than ${this.#limits.sourceBytesMax} bytes`)
    }
    if (this.#limit.pendingCount >= this.#limits.waiting) {
      throw new EdgeError('OVERLOADED', 'too many pictures wait to be rendered')
    }
    return await this.#limit(async () => {
      signal.throwIfAborted()
      return await this.#run({ source, rendition, pixelsMax: this.#limits.pixelsMax }, signal)
    })
  }

  async #run(job: RenderJob, signal: AbortSignal): Promise<Buffer> {
    const child = this.#idle.pop() ?? this.#launch()
    const ended = new AbortController()
    const late = AbortSignal.any([signal, AbortSignal.timeout(this.#limits.renderMs), ended.signal])
    const stop = () => child.kill('SIGKILL')
    late.addEventListener('abort', stop, { once: true })
    const watch = setInterval(() => void this.#boundMemory(child), MEMORY_LOOK_MS)
    try {
      const answered = once(child, 'message', { signal: late }) as Promise<[RenderAnswer]>
      const exited = once(child, 'exit', { signal: late }).then(() => {
        throw new EdgeError('REQUEST_INVALID', 'the picture took more memory than it may')
      })
      child.send(job)
      const [answer] = await Promise.race([answered, exited])
      late.removeEventListener('abort', stop)
      this.#idle.push(child)
      if ('error' in answer)
        throw new EdgeError('REQUEST_INVALID', `the picture cannot be rendered: ${answer.error}`)
      return Buffer.from(answer.bytes)
    } catch (cause) {
      if (cause instanceof EdgeError) throw cause
      signal.throwIfAborted()
      throw new EdgeError('REQUEST_INVALID', `the picture took longer than ${this.#limits.renderMs} ms`, {
        cause,
      })
    } finally {
      clearInterval(watch)
      late.removeEventListener('abort', stop)
      ended.abort()
    }
  }

  #launch(): ChildProcess {
    const child = fork(CHILD, { serialization: 'advanced', stdio: ['ignore', 'ignore', 'ignore', 'ipc'] })
    this.#all.add(child)
    child.on('error', () => {}) // its exit tells the same
    child.once('exit', () => {
      this.#all.delete(child)
      const at = this.#idle.indexOf(child)
      if (at >= 0) this.#idle.splice(at, 1)
    })
    return child
  }

  async #boundMemory(child: ChildProcess): Promise<void> {
    const statm = await readFile(`/proc/${child.pid}/statm`, 'utf8').catch(() => '')
    const residentBytes = Number(statm.split(' ')[1] ?? 0) * PAGE_BYTES
    if (residentBytes > this.#limits.childBytesMax) child.kill('SIGKILL')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exits = [...this.#all].map(child => once(child, 'exit'))
    for (const child of this.#all) child.kill('SIGKILL')
    await Promise.all(exits)
  }
}
