/**
 * What the generator needs to know: where NGINX listens, which nodes stand behind it, what its build can do.
 */
import { EdgeError } from '../manifests/errors.ts'

export interface NginxSettings {
  /** Absolute. Configuration, certificates, cache, temporary files and logs live below it. */
  readonly folder: string
  /** What the tower is called, best first: `tower.example`, `10.0.0.1`. */
  readonly names: readonly string[]
  /** Address to listen on; all when absent. */
  readonly host?: string
  readonly httpPort: number
  readonly httpsPort: number
  /** Nodes, `host:port`. More than one: requests go by digest or path, and fail over. */
  readonly nodes: readonly string[]
  /** Operators and publishers, by client certificate; without it there is no such listener. */
  readonly admin?: { readonly port: number /** `host:port` or `unix:/path` */; readonly upstream: string }
  readonly tls: TlsFiles
  readonly limits: NginxLimits
  /** Workers' user when NGINX is started by root. */
  readonly user?: string
  readonly workers: number | 'auto'
}

export interface TlsFiles {
  readonly certificate: string
  readonly key: string
  /** Who signs client certificates. */
  readonly clientCa: string
  /** From a public authority: browsers may be told to insist on HTTPS. */
  readonly public: boolean
}

/** Per client address. A classroom page with sixty pictures must pass, a flood must not. */
export interface NginxLimits {
  readonly requestsPerSecond: number
  readonly burst: number
  readonly connections: number
}

export const NGINX_LIMITS: NginxLimits = { requestsPerSecond: 50, burst: 200, connections: 100 }

export interface NginxBuild {
  readonly version: readonly [major: number, minor: number, patch: number]
  readonly http2: boolean
  readonly http3: boolean
}

/**
 * @param text what `nginx -V` prints.
 * @throws EdgeError `DEPENDENCY_ABSENT` when it is not NGINX's.
 */
export function parseNginxBuild(text: string): NginxBuild {
  const match = /nginx\/(\d+)\.(\d+)\.(\d+)/.exec(text)
  if (!match) throw new EdgeError('DEPENDENCY_ABSENT', `not NGINX: ${text.slice(0, 200)}`)
  return {
    version: [Number(match[1]), Number(match[2]), Number(match[3])],
    http2: text.includes('--with-http_v2_module'),
    http3: text.includes('--with-http_v3_module'),
  }
}

const ADDRESS = /^(?:[a-z0-9._-]+|\[[0-9a-f:]+\]):\d{1,5}$/i
const NAME = /^(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$|^[0-9a-f:]+$/i
const FILE = /^\/[^\s;{}"'\\$#]*$/

/**
 * Nothing in the settings may mean something else to NGINX's parser than a word.
 * @throws EdgeError `CONFIG_INVALID`
 */
export function checkSettings(settings: NginxSettings): void {
  const { names, nodes, admin, folder, tls } = settings
  if (nodes.length === 0 || names.length === 0) throw invalid('at least one node and one name are needed')
  for (const name of names) if (!NAME.test(name)) throw invalid(`not a server name: ${name}`)
  for (const node of nodes) if (!ADDRESS.test(node)) throw invalid(`not an address host:port: ${node}`)
  const socket = admin?.upstream.startsWith('unix:') ? admin.upstream.slice(5) : undefined
  if (admin && socket === undefined && !ADDRESS.test(admin.upstream))
    throw invalid(`not an address: ${admin.upstream}`)
  for (const path of [
    folder,
    tls.certificate,
    tls.key,
    tls.clientCa,
    ...(socket === undefined ? [] : [socket]),
  ]) {
    if (!FILE.test(path)) throw invalid(`NGINX cannot take this path (spaces, quotes, braces): ${path}`)
  }
}

function invalid(why: string): EdgeError {
  return new EdgeError('CONFIG_INVALID', why)
}
