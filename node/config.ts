/**
 * The node's settings: one schema for the file `tower.config.json` and the `TOWER_*` variables,
 * met once, at start-up. What comes out is typed, defaulted, absolute and frozen.
 *
 * A variable beats the file, the file beats the default. Whatever is not a setting is refused with
 * the nearest name that is, so a misspelt one stops the node now and not in the third window. An
 * empty variable counts as absent. Paths are relative to the file that names them, or to the
 * working folder.
 */
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { EdgeError } from '../manifests/errors.ts'
import { parseByteSize } from './byte-size.ts'

const GiB = 1024 ** 3
const MiB = 1024 ** 2
export const CONFIG_FILE = 'tower.config.json'

const byteSize = z.preprocess(
  value => (typeof value === 'string' ? parseByteSize(value) : value),
  z.number('an amount such as 20GiB or 500MB is needed').int().nonnegative(),
)
const count = z.coerce.number<number | string>().int()
const flag = z.union([z.boolean(), z.stringbool()])
/** In a variable: separated by commas or spaces. */
const listOf = <T extends z.ZodType>(entry: T) =>
  z.preprocess(
    value => (typeof value === 'string' ? value.split(/[\s,]+/).filter(Boolean) : value),
    z.array(entry),
  )
const httpUrl = z.url({ protocol: /^https?$/, error: 'a URL http://… or https://… is needed' })

/** Order is the order in which `tower config` shows them. */
const Settings = z.strictObject({
  data: z.string().default('.towerlight').describe('folder of everything the node keeps'),
  host: z.string().default('127.0.0.1').describe('address to listen on; NGINX stands in front'),
  port: count.min(0).max(65_535).default(8080).describe('port to listen on; 0 = any, printed'),
  admin: z.string().optional().describe('port or socket for operators and publishers; absent = off'),
  root: z.string().optional().describe('file of the trusted root (N.root.json) that a new node starts from'),
  upstream: listOf(
    z.url({ protocol: /^(https?|file)$/, error: 'a URL http://…, https://… or file:///… is needed' }),
  )
    .default([])
    .describe('repositories to fill from, best first'),
  links: z
    .preprocess(value => (typeof value === 'string' ? JSON.parse(value) : value), z.array(z.unknown()))
    .optional()
    .describe(
      'ways out, with contact windows and budgets (docs/warming.md); absent = one, whenever it is up',
    ),
  hotBytesMax: byteSize.default(8 * GiB).describe('capacity of the hot tier (NVMe)'),
  warm: z
    .string()
    .optional()
    .describe('folder of the warm tier (bulk disk); absent = inside the data folder'),
  warmBytesMax: byteSize.default(64 * GiB).describe('capacity of the warm tier'),
  memoryBytesMax: byteSize.default(32 * MiB).describe('capacity of the memory tier'),
  reserveBytes: byteSize.default(256 * MiB).describe('free space that content never takes (I7)'),
  mirror: flag.default(false).describe('keep packs, deltas and metadata byte for byte, for other nodes'),
  redisUrl: z
    .string()
    .regex(/^(rediss?:\/\/|\/)/, 'redis://…, rediss://… or the path of a socket is needed')
    .optional()
    .describe('Redis for the queue; absent = jobs run inside the node'),
  fetchConnections: count.min(1).max(64).default(6).describe('connections to an upstream at once'),
  fillWorkers: count
    .min(0)
    .max(16)
    .default(0)
    .describe('processes beside the owner that receive fills; 0 = it does so itself; needs Redis'),
  refreshSeconds: count.min(1).default(300).describe('time between looks for new releases'),
  ipfsApi: listOf(httpUrl).default([]).describe("Kubo's RPC addresses: pins, and healing"),
  ipfsReplicas: z
    .string()
    .regex(/^[1-9]\d?(-[1-9]\d?)?$/, 'a number such as 2, or least and most such as 1-2, is needed')
    .optional()
    .describe('copies of each pin over the Kubo hosts, least-most; absent = on every host'),
  s3Url: httpUrl.optional().describe('S3 bucket http://KEY:SECRET@host:port/bucket: pins, and healing'),
  peers: listOf(httpUrl).default([]).describe('other nodes nearby, to fill and heal from before the link'),
  shareDemand: flag
    .default(false)
    .describe('tell neighbours how often items are asked for here, by the hour: counts, nothing else'),
  scrubDays: count
    .min(1)
    .default(7)
    .describe('every stored byte is read and proven again within so many days'),
  workers: count.min(0).max(64).default(0).describe('more HTTP processes beside the owner, read-only'),
  drainMs: count.min(0).default(10_000).describe('time for open answers to finish at the end'),
  powerSupply: z.string().default('/sys/class/power_supply').describe('folder where the battery is read'),
  logLevel: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'])
    .default('info')
    .describe('least level logged'),
})
type Settings = z.infer<typeof Settings>
export type SettingName = keyof Settings

const VARIABLES = {
  data: 'TOWER_DATA',
  host: 'TOWER_HOST',
  port: 'TOWER_PORT',
  admin: 'TOWER_ADMIN',
  root: 'TOWER_ROOT',
  upstream: 'TOWER_UPSTREAM',
  links: 'TOWER_LINKS',
  hotBytesMax: 'TOWER_HOT_BYTES',
  warm: 'TOWER_WARM',
  warmBytesMax: 'TOWER_WARM_BYTES',
  memoryBytesMax: 'TOWER_MEMORY_BYTES',
  reserveBytes: 'TOWER_RESERVE_BYTES',
  mirror: 'TOWER_MIRROR',
  redisUrl: 'REDIS_URL',
  fetchConnections: 'TOWER_FETCH_CONNECTIONS',
  fillWorkers: 'TOWER_FILL_WORKERS',
  refreshSeconds: 'TOWER_REFRESH_SECONDS',
  ipfsApi: 'TOWER_IPFS_API',
  ipfsReplicas: 'TOWER_IPFS_REPLICAS',
  s3Url: 'TOWER_S3_URL',
  peers: 'TOWER_PEERS',
  shareDemand: 'TOWER_SHARE_DEMAND',
  scrubDays: 'TOWER_SCRUB_DAYS',
  workers: 'TOWER_WORKERS',
  drainMs: 'TOWER_DRAIN_MS',
  powerSupply: 'TOWER_POWER_SUPPLY',
  logLevel: 'TOWER_LOG_LEVEL',
} as const satisfies Record<SettingName, string>
const PATHS = ['data', 'root', 'warm', 'powerSupply'] as const satisfies readonly SettingName[]
const CONFIG_VARIABLE = 'TOWER_CONFIG'

export type NodeConfig = Readonly<Omit<Settings, 'warm'>> & { readonly warm: string }

export interface ExplainedSetting {
  readonly name: SettingName
  /** Passwords in URLs are masked. */
  readonly value: unknown
  /** `default`, the variable's name or the file's path. */
  readonly from: string
  readonly variable: string
  readonly meaning: string
}

export interface LoadedConfig {
  readonly config: NodeConfig
  readonly explain: () => readonly ExplainedSetting[]
}

export interface ConfigSources {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** What a command was given as options; beats everything. */
  readonly options?: Partial<Record<SettingName, unknown>>
}

/** @throws EdgeError `CONFIG_INVALID`, naming every wrong setting and where it stands. */
export async function loadConfig(sources: ConfigSources): Promise<LoadedConfig> {
  const file = await readConfigFile(sources)
  return parseConfig(file, sources)
}

interface ConfigFile {
  readonly path: string
  readonly values: Readonly<Record<string, unknown>>
}

/** `tower.config.json` may be absent; a file that TOWER_CONFIG names may not. */
async function readConfigFile({ env, cwd }: ConfigSources): Promise<ConfigFile | undefined> {
  const named = env[CONFIG_VARIABLE]
  const path = resolve(cwd, named || CONFIG_FILE)
  try {
    const values: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (typeof values !== 'object' || values === null || Array.isArray(values)) {
      throw new EdgeError('CONFIG_INVALID', `${path}: a JSON object is needed`)
    }
    return { path, values: values as Record<string, unknown> }
  } catch (cause) {
    if (cause instanceof EdgeError) throw cause
    if (!named && (cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new EdgeError('CONFIG_INVALID', `${path}: ${(cause as Error).message}`, { cause })
  }
}

function parseConfig(file: ConfigFile | undefined, { env, cwd, options = {} }: ConfigSources): LoadedConfig {
  const given: Record<string, unknown> = {}
  const from: Record<string, string> = {}
  const take = (name: string, value: unknown, source: string, folder: string) => {
    given[name] = isPath(name) && typeof value === 'string' ? resolve(folder, value) : value
    from[name] = source
  }

  for (const [name, value] of Object.entries(file?.values ?? {})) {
    if (name !== '$schema') take(name, value, file!.path, dirname(file!.path))
  }
  refuseUnknownVariables(env)
  for (const [name, variable] of Object.entries(VARIABLES)) {
    if (env[variable]) take(name, env[variable], variable, cwd)
  }
  for (const [name, value] of Object.entries(options)) {
    if (value !== undefined) take(name, value, 'command line', cwd)
  }

  const parsed = Settings.safeParse(given)
  if (!parsed.success) throw new EdgeError('CONFIG_INVALID', problemsOf(parsed.error, from).join('; '))
  const data = resolve(cwd, parsed.data.data)
  const config = frozen({ ...parsed.data, data, warm: parsed.data.warm ?? join(data, 'warm') })
  return { config, explain: () => explained(config, from) }
}

function isPath(name: string): boolean {
  return (PATHS as readonly string[]).includes(name)
}

function refuseUnknownVariables(env: ConfigSources['env']): void {
  const known: readonly string[] = [...Object.values(VARIABLES), CONFIG_VARIABLE]
  const unknown = Object.keys(env).filter(name => name.startsWith('TOWER_') && !known.includes(name))
  if (unknown.length === 0) return
  const problems = unknown.map(name => `${name} is not a setting${suggestion(name, known)}`)
  throw new EdgeError('CONFIG_INVALID', problems.join('; '))
}

function problemsOf({ issues }: z.ZodError, from: Readonly<Record<string, string>>): string[] {
  return issues.flatMap(issue => {
    if (issue.code === 'unrecognized_keys') {
      const names = Object.keys(VARIABLES)
      return issue.keys.map(key => `${from[key]}: "${key}" is not a setting${suggestion(key, names)}`)
    }
    const name = String(issue.path[0])
    return [`${from[name] ?? 'default'}: ${name}: ${issue.message}`]
  })
}

function suggestion(name: string, known: readonly string[]): string {
  const bare = (text: string) => text.toLowerCase().replace(/^tower_/, '')
  const [nearest] = known
    .map(candidate => ({ candidate, edits: editsBetween(bare(name), bare(candidate)) }))
    .filter(({ candidate, edits }) => edits <= Math.max(2, bare(candidate).length / 3))
    .toSorted((a, b) => a.edits - b.edits)
  return nearest ? `; do you mean ${nearest.candidate}?` : '; see tower config --explain'
}

/** Levenshtein's distance. */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(changed, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}

function frozen(config: NodeConfig): NodeConfig {
  for (const value of Object.values(config)) Object.freeze(value)
  return Object.freeze(config)
}

function explained(config: NodeConfig, from: Readonly<Record<string, string>>): ExplainedSetting[] {
  return Object.keys(Settings.shape).map(key => {
    const name = key as SettingName
    return {
      name,
      value: masked(config[name]),
      from: from[name] ?? 'default',
      variable: VARIABLES[name],
      meaning: Settings.shape[name].description ?? '',
    }
  })
}

function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked)
  return typeof value === 'string' ? value.replace(/^(\w+:\/\/[^:@/]*:)[^@/]+@/, '$1***@') : value
}
