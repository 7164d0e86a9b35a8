/**
 * TUF metadata files as types: root, timestamp, snapshot, targets (TUF 4.3 to 4.6).
 *
 * `parseX` proves shape and nothing else; who signed, and whether it is newer, is decided in
 * `verify.ts`. Parsing is linear in the file and keeps the bytes as they came: hashes cover them.
 */
import { parseTufKey, type TufKey } from './public-key.ts'
import {
  asArray,
  asCount,
  asObject,
  asText,
  asTextSet,
  asTimeMs,
  canonicalBytes,
  invalid,
  parseJson,
} from './json.ts'
import type { JsonObject } from './json.ts'

export type TopLevelRole = 'root' | 'timestamp' | 'snapshot' | 'targets'
export const TOP_LEVEL_ROLES: readonly TopLevelRole[] = ['root', 'timestamp', 'snapshot', 'targets']

export interface RoleKeys {
  readonly keyIds: ReadonlySet<string>
  readonly threshold: number
}

/** What every file has in common. */
export interface Metadata {
  readonly bytes: Uint8Array
  readonly version: number
  readonly expiresMs: number
  /** Our own field `x-towerlight-signed-at`: a floor for wrong clocks. */
  readonly signedAtMs: number | undefined
  /** Hex signatures by key id. */
  readonly signatures: ReadonlyMap<string, string>
  /** The bytes that signatures cover. */
  readonly canonical: Uint8Array
  /** The signed object as parsed, fields that we do not know included. */
  readonly signed: JsonObject
}

export interface Root extends Metadata {
  readonly consistentSnapshot: boolean
  readonly keys: ReadonlyMap<string, TufKey>
  readonly roles: Readonly<Record<TopLevelRole, RoleKeys>>
}

/** What one file says about another. */
export interface FileMeta {
  readonly version: number
  readonly lengthBytes: number | undefined
  /** Hex by algorithm; may be empty. */
  readonly hashes: ReadonlyMap<string, string>
}

export interface Timestamp extends Metadata {
  readonly snapshot: FileMeta
}

export interface Snapshot extends Metadata {
  /** By role name: the file name without `.json`. */
  readonly meta: ReadonlyMap<string, FileMeta>
}

/** A file that a targets role vouches for. */
export interface TufTarget {
  readonly lengthBytes: number
  readonly hashes: ReadonlyMap<string, string>
  readonly custom: unknown
}

export interface DelegatedRole extends RoleKeys {
  readonly name: string
  readonly terminating: boolean
  readonly paths: readonly string[] | undefined
  readonly pathHashPrefixes: readonly string[] | undefined
}

/** TAP 15: 2^bitLength roles that share keys, chosen by the path's hash. */
export interface SuccinctRoles extends RoleKeys {
  readonly bitLength: number
  readonly namePrefix: string
}

export interface Delegations {
  readonly keys: ReadonlyMap<string, TufKey>
  /** In order of priority; empty when `succinct` is given. */
  readonly roles: readonly DelegatedRole[]
  readonly succinct: SuccinctRoles | undefined
}

export interface Targets extends Metadata {
  readonly targets: ReadonlyMap<string, TufTarget>
  readonly delegations: Delegations | undefined
}

export const SIGNED_AT_FIELD = 'x-towerlight-signed-at'
const SIGNATURES_MAX = 1024

/** @throws EdgeError `TRUST_INVALID` */
export function parseRoot(bytes: Uint8Array): Root {
  const metadata = parseMetadata(bytes, 'root', 'root')
  const { signed } = metadata
  const roles = asObject(signed.roles, 'root roles')
  const keysOf = (role: TopLevelRole) =>
    roleKeys(asObject(roles[role], `root role ${role}`), `root role ${role}`)
  return {
    ...metadata,
    consistentSnapshot: asFlag(signed.consistent_snapshot, 'root consistent_snapshot'),
    keys: keyTable(signed.keys, 'root keys'),
    roles: {
      root: keysOf('root'),
      timestamp: keysOf('timestamp'),
      snapshot: keysOf('snapshot'),
      targets: keysOf('targets'),
    },
  }
}

/** @throws EdgeError `TRUST_INVALID` */
export function parseTimestamp(bytes: Uint8Array): Timestamp {
  const metadata = parseMetadata(bytes, 'timestamp', 'timestamp')
  const meta = asObject(metadata.signed.meta, 'timestamp meta')
  return { ...metadata, snapshot: fileMeta(meta['snapshot.json'], 'timestamp snapshot.json') }
}

/** @throws EdgeError `TRUST_INVALID` */
export function parseSnapshot(bytes: Uint8Array): Snapshot {
  const metadata = parseMetadata(bytes, 'snapshot', 'snapshot')
  const meta = new Map<string, FileMeta>()
  for (const [name, value] of Object.entries(asObject(metadata.signed.meta, 'snapshot meta'))) {
    if (!name.endsWith('.json')) throw invalid('snapshot meta', `${JSON.stringify(name)} is no file name`)
    meta.set(name.slice(0, -'.json'.length), fileMeta(value, `snapshot ${name}`))
  }
  if (!meta.has('targets')) throw invalid('snapshot meta', 'lacks targets.json')
  return { ...metadata, meta }
}

/** @throws EdgeError `TRUST_INVALID` */
export function parseTargets(bytes: Uint8Array, role: string): Targets {
  const metadata = parseMetadata(bytes, 'targets', role)
  const { signed } = metadata
  const targets = new Map<string, TufTarget>()
  for (const [path, value] of Object.entries(asObject(signed.targets, `${role} targets`))) {
    const json = asObject(value, `${role} target`)
    const hashes = hashTable(json.hashes, `${role} target hashes`)
    targets.set(path, {
      lengthBytes: asCount(json.length, 0, `${role} target length`),
      hashes,
      custom: json.custom,
    })
  }
  return { ...metadata, targets, delegations: delegationsOf(signed.delegations, role) }
}

function parseMetadata(bytes: Uint8Array, type: TopLevelRole, role: string): Metadata {
  const file = asObject(parseJson(bytes, role), role)
  const signed = asObject(file.signed, `${role} signed`)
  if (signed._type !== type) throw invalid(role, `_type is not ${type}`)
  if (!/^1(\.\d+){1,2}$/.test(asText(signed.spec_version, `${role} spec_version`))) {
    throw invalid(role, 'spec_version is not 1.x: a newer client is needed')
  }

  const signatures = new Map<string, string>()
  const listed = asArray(file.signatures, `${role} signatures`)
  if (listed.length > SIGNATURES_MAX) throw invalid(role, `more than ${SIGNATURES_MAX} signatures`)
  for (const entry of listed) {
    const signature = asObject(entry, `${role} signature`)
    const keyId = asText(signature.keyid, `${role} signature keyid`)
    if (signatures.has(keyId)) throw invalid(role, 'two signatures have the same keyid (TUF 4.2.1)')
    signatures.set(keyId, asText(signature.sig, `${role} signature`))
  }

  const signedAt = signed[SIGNED_AT_FIELD]
  return {
    bytes,
    version: asCount(signed.version, 1, `${role} version`),
    expiresMs: asTimeMs(signed.expires, `${role} expires`),
    signedAtMs: signedAt === undefined ? undefined : asTimeMs(signedAt, `${role} ${SIGNED_AT_FIELD}`),
    signatures,
    canonical: canonicalBytes(signed),
    signed,
  }
}

function keyTable(value: unknown, what: string): ReadonlyMap<string, TufKey> {
  return new Map(Object.entries(asObject(value, what)).map(([id, key]) => [id, parseTufKey(id, key)]))
}

function roleKeys(json: JsonObject, what: string): RoleKeys {
  return {
    keyIds: asTextSet(json.keyids, `${what} keyids`),
    threshold: asCount(json.threshold, 1, `${what} threshold`),
  }
}

function fileMeta(value: unknown, what: string): FileMeta {
  const json = asObject(value, what)
  return {
    version: asCount(json.version, 1, `${what} version`),
    lengthBytes: json.length === undefined ? undefined : asCount(json.length, 0, `${what} length`),
    hashes: json.hashes === undefined ? new Map() : hashTable(json.hashes, `${what} hashes`),
  }
}

function hashTable(value: unknown, what: string): ReadonlyMap<string, string> {
  const entries = Object.entries(asObject(value, what))
  if (entries.length === 0) throw invalid(what, 'no hash')
  return new Map(entries.map(([algorithm, hex]) => [algorithm, asText(hex, what)]))
}

function delegationsOf(value: unknown, role: string): Delegations | undefined {
  if (value === undefined || value === null) return undefined
  const what = `${role} delegations`
  const json = asObject(value, what)
  const keys = keyTable(json.keys, `${what} keys`)
  if ((json.roles === undefined) === (json.succinct_roles === undefined)) {
    throw invalid(what, 'exactly one of roles and succinct_roles is needed')
  }
  if (json.succinct_roles !== undefined)
    return { keys, roles: [], succinct: succinctOf(json.succinct_roles, what) }

  const roles = asArray(json.roles, what).map(entry => delegatedRole(entry, what))
  if (new Set(roles.map(({ name }) => name)).size !== roles.length)
    throw invalid(what, 'a role is named twice')
  return { keys, roles, succinct: undefined }
}

function delegatedRole(value: unknown, what: string): DelegatedRole {
  const json = asObject(value, what)
  const name = asText(json.name, `${what} name`)
  if (name === '' || (TOP_LEVEL_ROLES as readonly string[]).includes(name)) {
    throw invalid(what, `${JSON.stringify(name)} cannot be delegated to`)
  }
  const texts = (list: unknown) =>
    list === undefined || list === null ? undefined : asArray(list, what).map(text => asText(text, what))
  const paths = texts(json.paths)
  const pathHashPrefixes = texts(json.path_hash_prefixes)
  if ((paths === undefined) === (pathHashPrefixes === undefined)) {
    throw invalid(what, `${name}: exactly one of paths and path_hash_prefixes is needed`)
  }
  return {
    name,
    ...roleKeys(json, `${what} ${name}`),
    terminating: asFlag(json.terminating, what),
    paths,
    pathHashPrefixes,
  }
}

function succinctOf(value: unknown, what: string): SuccinctRoles {
  const json = asObject(value, `${what} succinct_roles`)
  const bitLength = asCount(json.bit_length, 1, `${what} bit_length`)
  if (bitLength > 32) throw invalid(what, 'bit_length is above 32')
  return { ...roleKeys(json, what), bitLength, namePrefix: asText(json.name_prefix, `${what} name_prefix`) }
}

function asFlag(value: unknown, what: string): boolean {
  if (value === undefined || value === null) return false
  if (typeof value !== 'boolean') throw invalid(what, 'not true or false')
  return value
}
