/**
 * The record inside a trust file, and its JSON. Metadata and manifests are kept byte for byte, as
 * texts (they are UTF-8 by format), each once, in one table that the rest refers to by number.
 */
import type { AcceptedState, RoleProblem, ServedMetadata } from '../manifests/tuf/accepted-state.ts'

export interface DatasetManifests {
  /** What is served. */
  readonly current?: Uint8Array | undefined
  /** Accepted, and not whole yet. */
  readonly next?: Uint8Array | undefined
}

export interface TrustRecord {
  /** `undefined` until a root was given. */
  readonly accepted: AcceptedState | undefined
  /** By dataset. */
  readonly manifests: ReadonlyMap<string, DatasetManifests>
  /** Highest revision ever accepted, by dataset: stays when the dataset goes (I2). */
  readonly revisionFloors: ReadonlyMap<string, number>
  /** The accepted `denylist.json`. */
  readonly denylist: Uint8Array | undefined
  /** What the operator pinned. */
  readonly pins: readonly string[]
}

export const EMPTY_TRUST: TrustRecord = {
  accepted: undefined,
  manifests: new Map(),
  revisionFloors: new Map(),
  denylist: undefined,
  pins: [],
}

interface TrustJson {
  readonly texts: readonly string[]
  readonly accepted: AcceptedJson | null
  readonly manifests: readonly (readonly [dataset: string, current: number | null, next: number | null])[]
  readonly revisionFloors: readonly (readonly [dataset: string, revision: number])[]
  readonly denylist: number | null
  readonly pins: readonly string[]
}

interface AcceptedJson {
  readonly roots: readonly number[]
  readonly timestamp: number | null
  readonly snapshot: number | null
  readonly roles: readonly (readonly [name: string, text: number])[]
  readonly served: ServedJson | null
  readonly problems: readonly RoleProblem[]
}

interface ServedJson {
  readonly rootVersion: number
  readonly timestamp: number
  readonly snapshot: number
  readonly roles: readonly (readonly [name: string, text: number])[]
  readonly confirmedAtMs: number
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function encodeTrust({ accepted, manifests, revisionFloors, denylist, pins }: TrustRecord): Buffer {
  const numbers = new Map<string, number>()
  const put = (bytes: Uint8Array): number => {
    const text = decoder.decode(bytes)
    const number = numbers.get(text) ?? numbers.size
    numbers.set(text, number)
    return number
  }
  const putOptional = (bytes: Uint8Array | undefined) => (bytes ? put(bytes) : null)
  const putRoles = (roles: ReadonlyMap<string, Uint8Array>) =>
    [...roles].map(([name, bytes]) => [name, put(bytes)] as const)
  const served = accepted?.served
  const json: Omit<TrustJson, 'texts'> = {
    accepted: accepted
      ? {
          roots: accepted.roots.map(put),
          timestamp: putOptional(accepted.timestamp),
          snapshot: putOptional(accepted.snapshot),
          roles: putRoles(accepted.roles),
          served: served
            ? {
                ...served,
                timestamp: put(served.timestamp),
                snapshot: put(served.snapshot),
                roles: putRoles(served.roles),
              }
            : null,
          problems: accepted.problems,
        }
      : null,
    manifests: [...manifests].map(([dataset, { current, next }]) => [
      dataset,
      putOptional(current),
      putOptional(next),
    ]),
    revisionFloors: [...revisionFloors],
    denylist: putOptional(denylist),
    pins,
  }
  return Buffer.from(JSON.stringify({ ...json, texts: [...numbers.keys()] } satisfies TrustJson))
}

/** Of bytes that were checked against their digest: they are what `encodeTrust` wrote. */
export function decodeTrust(bytes: Uint8Array): TrustRecord {
  const json = JSON.parse(decoder.decode(bytes)) as TrustJson
  const texts = json.texts.map(text => Buffer.from(text, 'utf8'))
  const get = (number: number): Uint8Array => {
    const text = texts[number]
    if (!text) throw new RangeError(`no text ${number}`)
    return text
  }
  const getOptional = (number: number | null) => (number === null ? undefined : get(number))
  const getRoles = (roles: AcceptedJson['roles']) =>
    new Map(roles.map(([name, number]) => [name, get(number)]))
  const servedOf = (served: ServedJson): ServedMetadata => ({
    ...served,
    timestamp: get(served.timestamp),
    snapshot: get(served.snapshot),
    roles: getRoles(served.roles),
  })
  return {
    accepted: json.accepted
      ? {
          roots: json.accepted.roots.map(get),
          timestamp: getOptional(json.accepted.timestamp),
          snapshot: getOptional(json.accepted.snapshot),
          roles: getRoles(json.accepted.roles),
          served: json.accepted.served ? servedOf(json.accepted.served) : undefined,
          problems: json.accepted.problems,
        }
      : undefined,
    manifests: new Map(
      json.manifests.map(([dataset, current, next]) => [
        dataset,
        { current: getOptional(current), next: getOptional(next) },
      ]),
    ),
    revisionFloors: new Map(json.revisionFloors),
    denylist: getOptional(json.denylist),
    pins: json.pins,
  }
}
