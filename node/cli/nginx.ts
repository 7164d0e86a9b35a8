/** `tower nginx`: NGINX's configuration for this node, and client certificates with roles. */
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { ROLES, issueClientCertificate } from '../../nginx/certificates.ts'
import { NGINX_LIMITS } from '../../nginx/settings.ts'
import { type WriteRequest, type WrittenNginx, writeNginx } from '../../nginx/write.ts'
import { EdgeError } from '../../manifests/errors.ts'
import { loadConfig, type NodeConfig } from '../config.ts'
import { answer, newCommand } from './command.ts'

interface NginxFlags {
  readonly json?: boolean
  readonly write?: boolean
  readonly folder?: string
  readonly name: readonly string[]
  readonly node: readonly string[]
  readonly http: string
  readonly https: string
  readonly adminPort: string
  readonly listen?: string
  readonly cert?: string
  readonly key?: string
  readonly user?: string
  readonly client?: string
  readonly role?: string
}

export function nginxCommand(): Command {
  return newCommand('nginx', {
    summary: "Write NGINX's configuration for this node: TLS, limits, several nodes, roles by certificate.",
    examples: [
      [
        'tower nginx --write --name tower.lan',
        'into nginx/ in the data folder, with an authority of its own',
      ],
      ['tower nginx --write --name tower.lan --cert c.pem --key k.pem', 'with a certificate of yours'],
      ['tower nginx --write --name tower.lan --node 10.0.0.2:8080 --node 10.0.0.3:8080', 'before two nodes'],
      ['tower nginx --client amina --role publisher', 'a client certificate for the operators’ listener'],
    ],
  })
    .option('--write', 'write it, and check it with nginx -t when NGINX is here')
    .option('--folder <folder>', 'where; by default nginx/ in the data folder')
    .option('--name <name>', 'host name or address of the tower; the first is the main one', collect, [])
    .option('--node <host:port>', 'nodes behind it; by default this one', collect, [])
    .option('--http <port>', 'port in the clear', '80')
    .option('--https <port>', 'port with TLS', '443')
    .option('--admin-port <port>', 'port for operators and publishers, where TOWER_ADMIN is set', '8443')
    .option('--listen <address>', 'listen on this address only')
    .option('--cert <file>', 'certificate chain for the tower’s name')
    .option('--key <file>', 'its key')
    .option('--user <user>', 'whose rights the workers have, when root starts NGINX')
    .option('--client <name>', 'make a client certificate for this person or machine')
    .option('--role <role>', `one of ${ROLES.join(', ')}`)
    .action(nginx)
}

async function nginx(flags: NginxFlags): Promise<void> {
  const { config } = await loadConfig({ env: process.env, cwd: process.cwd() })
  const folder = resolve(flags.folder ?? join(config.data, 'nginx'))
  if (flags.client !== undefined) {
    const files = await issueClientCertificate(join(folder, 'tls'), flags.client, flags.role ?? '')
    return answer(flags.json, files, () => `certificate ${files.certificate}\nkey         ${files.key}`)
  }
  if (!flags.write) throw new EdgeError('REQUEST_INVALID', 'say --write, or --client with --role; see --help')
  const written = await writeNginx(requestOf(flags, config, folder), new Date())
  answer(flags.json, written, () => textOf(written))
}

function requestOf(flags: NginxFlags, config: NodeConfig, folder: string): WriteRequest {
  const host = config.host === '0.0.0.0' || config.host === '::' ? '127.0.0.1' : config.host
  if (flags.node.length === 0 && config.port === 0) {
    throw new EdgeError(
      'CONFIG_INVALID',
      'the node has no fixed port: set TOWER_PORT, or name it with --node',
    )
  }
  if ((flags.cert === undefined) !== (flags.key === undefined)) {
    throw new EdgeError('CONFIG_INVALID', '--cert and --key go together')
  }
  return {
    folder,
    names: flags.name.length > 0 ? flags.name : ['tower.lan'],
    nodes: flags.node.length > 0 ? flags.node : [`${host}:${config.port}`],
    httpPort: portOf(flags.http),
    httpsPort: portOf(flags.https),
    limits: NGINX_LIMITS,
    workers: 'auto',
    ...(flags.listen === undefined ? {} : { host: flags.listen }),
    ...(flags.user === undefined ? {} : { user: flags.user }),
    ...(config.admin === undefined
      ? {}
      : { admin: { port: portOf(flags.adminPort), upstream: adminUpstream(config.admin) } }),
    ...(flags.cert === undefined || flags.key === undefined
      ? {}
      : { provided: { certificate: resolve(flags.cert), key: resolve(flags.key) } }),
  }
}

/** `TOWER_ADMIN` is a port or the path of a socket. */
function adminUpstream(admin: string): string {
  if (/^\d+$/.test(admin)) return `127.0.0.1:${admin}`
  return admin.includes('/') ? `unix:${resolve(admin)}` : admin
}

function portOf(text: string): number {
  const port = Number(text)
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new EdgeError('CONFIG_INVALID', `not a port: ${text}`)
  return port
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value]
}

function textOf({ config, changed, authority, tested }: WrittenNginx): string {
  return [
    `${changed ? 'written' : 'unchanged'}  ${config}`,
    tested
      ? 'nginx -t   approves'
      : 'nginx -t   not run: NGINX is not installed here (apt-get install nginx-light)',
    ...(authority === undefined ? [] : [`authority  ${authority} (for devices that should trust the tower)`]),
    `start      nginx -c ${config}`,
    `reload     nginx -c ${config} -s reload`,
  ].join('\n')
}
