/**
 * `tower up`, what `npm start` runs: a publisher, an origin, a queue and a tower on this machine. The
 * sample datasets are published and filled; then their second release comes out, so that one sees
 * what an update costs. With TOWER_UPSTREAM set it is a tower for that upstream, without samples.
 *
 * Everything stays in the data folder. A second start finds it there and serves at once.
 */
import { join } from 'node:path'
import type { Command } from 'commander'
import { isEdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import type { FillEvent } from '../../warmers/fill-once.ts'
import { formatByteSize } from '../byte-size.ts'
import { type ConfigSources, loadConfig, type NodeConfig } from '../config.ts'
import { isRedisAbsent, openEmbeddedRedis } from '../embedded-redis.ts'
import { openStaticOrigin } from '../static-origin.ts'
import { newCommand } from './command.ts'
import { showEvent } from './fill.ts'
import { interruption } from './interrupt.ts'
import { openProgress } from './progress.ts'
import { openSampleRepository } from './sample-repository.ts'

export interface RunningNode extends AsyncDisposable {
  /** Where it answers, with the slash at the end. */
  readonly url: string
  fill(options: Abortable): AsyncIterable<FillEvent>
}

/** What a tower is started by; tests hand in another one. */
export type StartNode = (config: NodeConfig) => Promise<RunningNode>

interface UpFlags {
  readonly json?: boolean
  readonly port?: string
  readonly data?: string
}

interface UpContext extends Abortable, Pick<ConfigSources, 'env' | 'cwd'> {
  readonly startNode: StartNode
  readonly print: (line: string) => void
}

type Say = (event: string, about: Readonly<Record<string, unknown>>, text: string) => void

export function upCommand(startNode: StartNode): Command {
  return newCommand('up', {
    summary:
      'A whole tower on this machine, with sample datasets: publish, fill, update, serve. Ctrl-C stops it.',
    examples: [
      ['tower up', 'on port 8080, data in ./.towerlight'],
      ['tower up --port 0', 'on any free port, which it prints'],
      [
        'TOWER_UPSTREAM=https://origin.example/ TOWER_ROOT=root.json tower up',
        'a tower for that origin, no samples',
      ],
    ],
  })
    .option('--port <port>', 'instead of TOWER_PORT')
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action((flags: UpFlags) =>
      runUp(flags, {
        startNode,
        signal: interruption(),
        env: process.env,
        cwd: process.cwd(),
        print: line => console.log(line),
      }),
    )
}

/** Resolves when `signal` was aborted and everything has stopped. */
export async function runUp(
  { json, ...flags }: UpFlags,
  { startNode, signal, env, cwd, print }: UpContext,
): Promise<void> {
  const say: Say = (event, about, text) => print(json ? JSON.stringify({ event, ...about }) : text)
  const { config, explain } = await loadConfig({ env, cwd, options: flags })
  const isSilent = explain().some(({ name, from }) => name === 'logLevel' && from === 'default')
  await using stack = new AsyncDisposableStack()
  const redisUrl = config.redisUrl ?? (await startRedis(config, stack, say))
  const samples =
    config.upstream.length === 0 ? await openSampleRepository(join(config.data, 'samples')) : undefined
  const origin = samples && stack.use(await openStaticOrigin(samples.folder))
  if (samples?.isNew) await samples.publish(1)

  const joined = {
    ...flags,
    redisUrl,
    ...(isSilent && { logLevel: 'warn' }), // people read this one
    ...(origin && { upstream: [origin.url], root: samples.rootPath }),
  }
  const node = stack.use(await startNode((await loadConfig({ env, cwd, options: joined })).config))
  try {
    if (samples?.isNew) {
      await showFill(node, { json, say, signal, what: 'first fill' })
    }
    await samples?.publish(2)
    await showFill(node, { json, say, signal, what: samples?.isNew ? 'update' : 'fill' })
    say('ready', { url: node.url, origin: origin?.url }, hintsFor(node.url, samples !== undefined))
    await aborted(signal)
  } catch (error) {
    if (!signal.aborted) throw error
  }
  say('stopping', {}, 'Stopping.')
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  const { promise, resolve } = Promise.withResolvers<void>()
  signal.addEventListener('abort', () => resolve(), { once: true })
  await promise
}

async function startRedis(
  config: NodeConfig,
  stack: AsyncDisposableStack,
  say: Say,
): Promise<string | undefined> {
  try {
    const redis = stack.use(await openEmbeddedRedis(join(config.data, 'redis')))
    return redis.redisUrl
  } catch (error) {
    if (!isRedisAbsent(error)) throw error
    say('redis', { available: false }, 'No Redis here: the queue runs inside the node instead.')
    return undefined
  }
}

interface FillView extends Abortable {
  readonly json: boolean | undefined
  readonly say: Say
  readonly what: string
}

/** A fill that fails is told and no reason to stop: what is here is served (I6). */
async function showFill(node: RunningNode, { json, say, what, signal }: FillView): Promise<void> {
  using progress = openProgress({ json })
  try {
    for await (const event of node.fill({ signal })) {
      if (event.type !== 'done') showEvent(progress, what, event)
      else {
        progress[Symbol.dispose]()
        const { contentBytes, wire, seconds } = event
        say('filled', { what, contentBytes, wire, seconds }, filledText(what, event))
      }
    }
  } catch (error) {
    if (!isEdgeError(error)) throw error
    progress[Symbol.dispose]()
    say(
      'failed',
      { what, code: error.code, message: error.message },
      `${what}: ${error.code}: ${error.message}`,
    )
  }
}

function filledText(
  what: string,
  { contentBytes, wire, seconds }: Extract<FillEvent, { type: 'done' }>,
): string {
  const onWire = formatByteSize(wire.down + wire.up)
  return `${what}: ${formatByteSize(contentBytes)} of content with ${onWire} on the wire, ${seconds.toFixed(1)} s`
}

function hintsFor(url: string, hasSamples: boolean): string {
  const base = url.replace(/\/$/, '')
  const examples = hasSamples
    ? [
        `  curl ${base}/data/health/hands-and-water/2-diarrhoea.md`,
        `  curl -i -r 0-99 ${base}/data/education/light-and-colour/tables/refraction-angles.csv`,
        `  curl -H 'Accept: application/json' ${base}/data/education/light-and-colour/`,
      ]
    : [`  curl -H 'Accept: application/json' ${base}/api/v1/datasets`]
  return [
    '',
    `The tower is at ${base}/  (open it in a browser; Ctrl-C stops everything)`,
    '',
    'Try:',
    ...examples,
    `  curl ${base}/api/v1/status`,
    '',
  ].join('\n')
}
