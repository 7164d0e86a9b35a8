/**
 * Asks the owner of the store: the running node over its control socket, or, when none runs, this
 * process, which opens the store for as long as the command takes.
 */
import { tmpdir } from 'node:os'
import type { Abortable } from '../../manifests/extent.ts'
import { isEdgeError } from '../../manifests/errors.ts'
import { type ConfigSources, loadConfig } from '../config.ts'
import { callControl } from '../control.ts'
import { controlSocketOf } from './owner-methods.ts'

export interface OwnerFlags {
  readonly json?: boolean
  readonly data?: string
}

/** @throws EdgeError what the method threw; `STORE_LOCKED` when a node holds the store but does not answer. */
export async function* callOwner(
  { data }: OwnerFlags,
  method: string,
  params: unknown,
  options: Abortable,
): AsyncGenerator<unknown> {
  const sources: ConfigSources = { env: process.env, cwd: process.cwd(), ...(data && { options: { data } }) }
  const { config } = await loadConfig(sources)
  let answered = false
  try {
    for await (const value of callControl(controlSocketOf(config, tmpdir()), method, params, options)) {
      answered = true
      yield value
    }
    return
  } catch (error) {
    if (answered || !isEdgeError(error, 'NOT_READY')) throw error
  }
  const [{ openOwner }, { ownerMethods }] = await Promise.all([
    import('../owner.ts'),
    import('./owner-methods.ts'),
  ])
  await using owner = await openOwner(config)
  const methods = ownerMethods(owner, undefined, Date.now())
  const own = methods[method]
  if (!own) throw new Error(`no method ${method}`)
  yield* own(params, options)
}

/** For methods that answer one value. */
export async function askOwner<T>(
  flags: OwnerFlags,
  method: string,
  params: unknown,
  options: Abortable,
): Promise<T> {
  for await (const value of callOwner(flags, method, params, options)) return value as T
  throw new Error(`${method} answered nothing`)
}
