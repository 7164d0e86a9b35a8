/** `tower serve`: the node. Serves what is here, keeps itself filled, until it is told to stop. */
import type { Command } from 'commander'
import { pino } from 'pino'
import { loadConfig } from '../config.ts'
import { startNode } from '../main.ts'
import { newCommand } from './command.ts'
import { interruption } from './interrupt.ts'

interface ServeFlags {
  readonly json?: boolean
  readonly port?: string
  readonly data?: string
}

export function serveCommand(): Command {
  return newCommand('serve', {
    summary:
      'The node: serves over HTTP, and fills from its upstreams. Logs to stderr; SIGTERM drains and stops it.',
    examples: [
      ['TOWER_ROOT=root.json TOWER_UPSTREAM=https://origin.example/ tower serve', 'a tower'],
      [
        'TOWER_ROOT=root.json TOWER_ADMIN=8081 tower serve',
        'takes releases: tower publish … --to http://…:8081/',
      ],
    ],
  })
    .option('--port <port>', 'instead of TOWER_PORT')
    .option('--data <folder>', 'instead of TOWER_DATA')
    .action(serve)
}

async function serve({ json, ...options }: ServeFlags): Promise<void> {
  const signal = interruption()
  const { config } = await loadConfig({ env: process.env, cwd: process.cwd(), options })
  const log = pino({ level: config.logLevel }, pino.destination({ dest: 2, sync: true }))
  await using node = await startNode(config, log)
  console.log(json ? JSON.stringify({ event: 'ready', url: node.url }) : `The tower is at ${node.url}`)
  if (!signal.aborted) await new Promise(resolve => signal.addEventListener('abort', resolve, { once: true }))
  process.exitCode = 0 // being told to stop is how it ends every day
}
