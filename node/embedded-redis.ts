/**
 * A Redis of our own for `tower up`: reachable by a unix socket in the data folder and nowhere else.
 *
 * It keeps nothing on disk, no AOF and no snapshots: the jobs are `manifest − store` and are derived
 * again from nothing (I8), so durability would only wear the flash and bring back stale jobs.
 * `noeviction` because a queue that forgets jobs silently is worse than one that refuses them; it
 * is bounded in memory all the same. A Redis that dies is started again; meanwhile the in-process
 * executor works (I6). One that a killed predecessor left on the socket is shut down first.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { EdgeError, isEdgeError } from '../manifests/errors.ts'

export interface EmbeddedRedis extends AsyncDisposable {
  /** Path of the socket: what ioredis and `redis-cli -s` take, and a value of `REDIS_URL`. */
  readonly redisUrl: string
  /** Of the present process; undefined while it is being started again. */
  readonly pid: number | undefined
}

const START_MS = 10_000
const RESTART_PAUSE_MS = 1_000
const STOP_MS = 5_000
/** sockaddr_un has room for 107 characters. */
const SOCKET_PATH_MAX = 107
/** About a hundred thousand small jobs; a window has a few hundred. */
const MEMORY_BYTES_MAX = 128 * 1024 * 1024

/**
 * @param folder for the socket; made when absent.
 * @param program tests hand in one that is not there.
 * @throws EdgeError `DEPENDENCY_ABSENT` when there is no redis-server, `NOT_READY` when it does not start.
 */
export async function openEmbeddedRedis(folder: string, program = 'redis-server'): Promise<EmbeddedRedis> {
  const { path, remove } = await socketPathIn(folder)
  await shutDownPredecessor(path)
  const stopping = new AbortController()
  let child: ChildProcess | undefined = await start(program, path)
  const supervised = supervise()

  return {
    redisUrl: path,
    get pid() {
      return child?.pid
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      if (child) await stop(child)
      await supervised
      await remove()
    },
  }

  async function supervise(): Promise<void> {
    while (!stopping.signal.aborted) {
      if (child) await exitOf(child)
      child = undefined
      await pause(RESTART_PAUSE_MS, undefined, { signal: stopping.signal, ref: false }).catch(() => {})
      if (stopping.signal.aborted) return
      const next = await start(program, path).catch(() => undefined) // tried again: a full disk may have room later
      if (next && stopping.signal.aborted) await stop(next)
      child = next
    }
  }
}

/** In `folder`, or in a private temporary one when the path would not fit into a socket's address. */
async function socketPathIn(folder: string): Promise<{ path: string; remove: () => Promise<void> }> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'redis.sock')
  if (Buffer.byteLength(path) <= SOCKET_PATH_MAX) {
    return { path, remove: () => rm(path, { force: true }) }
  }
  const short = await mkdtemp(join(tmpdir(), 'towerlight-redis-'))
  await chmod(short, 0o700)
  return { path: join(short, 'redis.sock'), remove: () => rm(short, { recursive: true, force: true }) }
}

async function start(program: string, path: string): Promise<ChildProcess> {
  const options = {
    port: '0',
    unixsocket: path,
    unixsocketperm: '700',
    save: '',
    appendonly: 'no',
    'maxmemory-policy': 'noeviction',
    maxmemory: String(MEMORY_BYTES_MAX),
    daemonize: 'no',
  }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  // A process group of its own: the terminal's Ctrl-C is for us, and we stop it last.
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let said = ''
  const ready = Promise.withResolvers<void>()
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4_000)
    if (/ready to accept connections/i.test(said)) ready.resolve()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4_000)))
  child.on('error', ready.reject)
  child.on('exit', () => ready.reject(new Error(said.trim().split('\n').at(-1) ?? 'it ended at once')))
  const tooLate = setTimeout(() => ready.reject(new Error(`no answer in ${START_MS} ms`)), START_MS)

  try {
    await ready.promise
    return child
  } catch (cause) {
    child.kill('SIGKILL')
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new EdgeError('DEPENDENCY_ABSENT', `${program} is not installed`, { cause })
    }
    throw new EdgeError('NOT_READY', `${program} did not start: ${(cause as Error).message}`, { cause })
  } finally {
    clearTimeout(tooLate)
  }
}

async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM')
  const tooLate = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await exitOf(child)
  clearTimeout(tooLate)
}

/** Nobody answers: nothing to do. */
async function shutDownPredecessor(path: string): Promise<void> {
  const socket = connect(path)
  const left = Promise.withResolvers<void>()
  socket.on('connect', () => socket.write('SHUTDOWN NOSAVE\r\n')).on('data', () => {})
  socket.on('error', () => left.resolve()).on('close', () => left.resolve())
  const tooLate = setTimeout(
    () => left.reject(new EdgeError('NOT_READY', `${path}: another Redis does not end`)),
    STOP_MS,
  )
  try {
    await left.promise
  } finally {
    clearTimeout(tooLate)
    socket.destroy()
  }
}

/** Whether `error` says that there is no Redis to be had here: go on without it. */
export function isRedisAbsent(error: unknown): boolean {
  return isEdgeError(error, 'DEPENDENCY_ABSENT', 'NOT_READY')
}
