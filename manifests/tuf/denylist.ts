/**
 * The denylist: a target of the top-level role that names what must no longer be served (410).
 *
 * `{"format":"towerlight-denylist-v1","entries":[…]}`, each entry a `sha256` (an item's bytes,
 * wherever they occur), a `dataset`, or a `dataset` and a `path` in it; `reason` and `since` are for
 * people. Being signed by `targets`, it reaches every tower with the next update.
 */
import { isSha256 } from '../digest.ts'
import { parseDatasetName } from '../dataset-name.ts'
import { parseItemPath } from '../item-path.ts'
import { asArray, asObject, asText, invalid, parseJson } from './json.ts'

export const DENYLIST_TARGET = 'denylist.json'
const FORMAT = 'towerlight-denylist-v1'
const ENTRIES_MAX = 100_000

export interface DenylistEntry {
  readonly sha256?: string | undefined
  readonly dataset?: string | undefined
  readonly path?: string | undefined
  readonly reason?: string | undefined
  /** ISO 8601. */
  readonly since?: string | undefined
}

export interface Denylist {
  readonly entries: readonly DenylistEntry[]
  /** Whether the item at `path` of `dataset`, with these bytes, is denied. */
  denies(dataset: string, path: string, sha256: string): boolean
  deniesDigest(sha256: string): boolean
}

/** @throws EdgeError `TRUST_INVALID` for anything that we do not understand: a denial must not get lost. */
export function parseDenylist(bytes: Uint8Array): Denylist {
  const json = asObject(parseJson(bytes, 'denylist'), 'denylist')
  if (json.format !== FORMAT) throw invalid('denylist', `format is not ${FORMAT}`)
  const listed = asArray(json.entries, 'denylist entries')
  if (listed.length > ENTRIES_MAX) throw invalid('denylist', `more than ${ENTRIES_MAX} entries`)
  return denylistOf(listed.map(parseEntry))
}

export function encodeDenylist(entries: readonly DenylistEntry[]): Buffer {
  const ordered = entries.map(({ sha256, dataset, path, reason, since }) => ({
    sha256,
    dataset,
    path,
    reason,
    since,
  }))
  return Buffer.from(JSON.stringify({ format: FORMAT, entries: ordered }))
}

/** Whether two entries deny the same thing. */
export function isSameDenial(a: DenylistEntry, b: DenylistEntry): boolean {
  return a.sha256 === b.sha256 && a.dataset === b.dataset && a.path === b.path
}

export function denylistOf(entries: readonly DenylistEntry[]): Denylist {
  const digests = new Set(entries.map(({ sha256 }) => sha256))
  const datasets = new Set(entries.filter(({ path }) => path === undefined).map(({ dataset }) => dataset))
  const items = new Set(
    entries.filter(({ path }) => path !== undefined).map(({ dataset, path }) => `${dataset}/${path}`),
  )
  return {
    entries,
    // asked for each of 100,000 items in turn: mostly there are no entries at all
    denies: (dataset, path, sha256) =>
      entries.length > 0 && (digests.has(sha256) || datasets.has(dataset) || items.has(`${dataset}/${path}`)),
    deniesDigest: sha256 => digests.has(sha256),
  }
}

function parseEntry(value: unknown): DenylistEntry {
  const json = asObject(value, 'denylist entry')
  const text = (field: string) =>
    json[field] === undefined ? undefined : asText(json[field], `denylist ${field}`)
  const entry = {
    sha256: text('sha256'),
    dataset: text('dataset'),
    path: text('path'),
    reason: text('reason'),
    since: text('since'),
  }
  if ((entry.sha256 === undefined) === (entry.dataset === undefined)) {
    throw invalid('denylist entry', 'exactly one of sha256 and dataset is needed')
  }
  if (entry.sha256 !== undefined && !isSha256(entry.sha256)) throw invalid('denylist entry', 'not a SHA-256')
  if (entry.path !== undefined && entry.dataset === undefined)
    throw invalid('denylist entry', 'a path needs its dataset')
  if (entry.dataset !== undefined) parseDatasetName(entry.dataset)
  if (entry.path !== undefined) parseItemPath(entry.path)
  return entry
}
