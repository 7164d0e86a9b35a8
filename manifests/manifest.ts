/**
 * The small signed file that names one release of a dataset (docs/formats.md). It is a TUF target,
 * so its bytes are authentic before they are parsed here; parsing makes sure that they make sense.
 *
 * Keys we do not know are let through, so that a newer publisher can say more to newer nodes;
 * another `format` or `chunking` would mean other bytes and is refused.
 */
import { z } from 'zod'
import { codecOf, parseCid, rawCidOf, type Cid } from './cid.ts'
import { isDatasetName } from './dataset-name.ts'
import { isSha256, type Sha256 } from './digest.ts'
import { EdgeError } from './errors.ts'
import { CHUNKING, type Chunking } from './fastcdc.ts'

export const MANIFEST_FORMAT = 'towerlight-manifest-v1'
export const MANIFEST_BYTES_MAX = 1024 * 1024
export const PACK_BYTES_MAX = 1024 ** 3

/** Where a pack's or delta's compressed directory is in its file, and what it must be. Bytes. */
export interface DirectoryRef {
  readonly offset: number
  readonly size: number
  readonly rawSize: number
  readonly sha256: Sha256
}

export interface PackRef {
  readonly sha256: Sha256
  readonly size: number
  readonly directory: DirectoryRef
}

export interface DeltaRef extends PackRef {
  /** The revision whose bytes it starts from. */
  readonly from: number
  /** The manifest of that revision: whoever is further behind finds deltas to it there. */
  readonly manifest?: Sha256 | undefined
}

export interface PinPolicy {
  readonly ipfs: boolean
  readonly s3: boolean
  /** Globs over item paths; every item when absent. */
  readonly paths?: readonly string[] | undefined
}

export interface Manifest {
  readonly format: typeof MANIFEST_FORMAT
  readonly dataset: string
  readonly title?: string | undefined
  readonly revision: number
  /** ISO 8601, whole seconds, UTC. */
  readonly published: string
  readonly priority: 0 | 1 | 2 | 3
  readonly pin?: PinPolicy | undefined
  readonly chunking: Chunking
  readonly catalog: {
    readonly root: Cid
    readonly sha256: Sha256
    readonly size: number
    readonly items: number
    readonly itemBytes: number
  }
  readonly packs: readonly PackRef[]
  readonly deltas: readonly DeltaRef[]
}

const Count = z.number().int().nonnegative()
const Digest = z.custom<Sha256>(isSha256, 'not a SHA-256')
const Root = z.custom<Cid>(isCid, 'not a CID of our form')
const Directory = z.object({
  offset: Count,
  size: Count,
  rawSize: Count.max(256 * 1024 * 1024),
  sha256: Digest,
})
const Pack = z
  .object({ sha256: Digest, size: Count.max(PACK_BYTES_MAX), directory: Directory })
  .refine(
    ({ size, directory }) => directory.offset + directory.size <= size,
    'the directory lies outside its file',
  )

const ManifestShape = z.object({
  format: z.literal(MANIFEST_FORMAT),
  dataset: z.custom<string>(isDatasetName, 'not a dataset name'),
  title: z.string().max(200).optional(),
  revision: Count.positive(),
  published: z
    .string()
    .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
    .refine(text => !Number.isNaN(Date.parse(text))),
  priority: z.union([z.literal(0), z.literal(1), z.literal(2), z.literal(3)]),
  pin: z
    .object({ ipfs: z.boolean(), s3: z.boolean(), paths: z.array(z.string().max(1000)).max(1000).optional() })
    .optional(),
  chunking: z.object({
    name: z.literal(CHUNKING.name),
    minBytes: z.literal(CHUNKING.minBytes),
    avgBytes: z.literal(CHUNKING.avgBytes),
    maxBytes: z.literal(CHUNKING.maxBytes),
  }),
  catalog: z
    .object({ root: Root, sha256: Digest, size: Count, items: Count, itemBytes: Count })
    .refine(
      ({ root, sha256 }) => codecOf(root) === 'dag-pb' || root === rawCidOf(sha256),
      'root and sha256 do not fit',
    ),
  packs: z.array(Pack).max(1000),
  deltas: z
    .array(z.intersection(Pack, z.object({ from: Count.positive(), manifest: Digest.optional() })))
    .max(100),
})

/** @throws EdgeError `MANIFEST_INVALID`, naming the key. */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.length > MANIFEST_BYTES_MAX)
    throw new EdgeError('MANIFEST_INVALID', 'a manifest of more than 1 MiB')
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new EdgeError('MANIFEST_INVALID', 'a manifest that is not JSON in UTF-8', { cause })
  }
  const parsed = ManifestShape.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new EdgeError(
      'MANIFEST_INVALID',
      `manifest: ${issue?.path.join('.') || 'value'}: ${issue?.message}`,
    )
  }
  return parsed.data
}

/** Canonical bytes: fixed key order, no white space. */
export function encodeManifest(manifest: Manifest): Buffer {
  const { format, dataset, title, revision, published, priority, pin, chunking, catalog, packs, deltas } =
    manifest
  return Buffer.from(
    JSON.stringify({
      format,
      dataset,
      title,
      revision,
      published,
      priority,
      pin: pin && { ipfs: pin.ipfs, s3: pin.s3, paths: pin.paths },
      chunking: pick(chunking, 'name', 'minBytes', 'avgBytes', 'maxBytes'),
      catalog: pick(catalog, 'root', 'sha256', 'size', 'items', 'itemBytes'),
      packs: packs.map(packJson),
      deltas: deltas.map(delta => ({ from: delta.from, ...packJson(delta), manifest: delta.manifest })),
    }),
  )
}

/** The name of a dataset's manifest among TUF targets. */
export function manifestTarget(dataset: string): string {
  return `${dataset}/manifest.json`
}

/** Where a manifest lies in a repository (TUF consistent snapshots: the digest is in the file name). */
export function manifestPath(dataset: string, sha256: Sha256): string {
  return `targets/${dataset}/${sha256}.manifest.json`
}

export function packPath(sha256: Sha256): string {
  return `packs/${sha256}.pack`
}

export function deltaPath(sha256: Sha256): string {
  return `deltas/${sha256}.delta`
}

function packJson(pack: PackRef): PackRef {
  return {
    sha256: pack.sha256,
    size: pack.size,
    directory: pick(pack.directory, 'offset', 'size', 'rawSize', 'sha256'),
  }
}

/** The named properties, in this order. */
function pick<T, K extends keyof T>(value: T, ...keys: K[]): Pick<T, K> {
  return Object.fromEntries(keys.map(key => [key, value[key]])) as Pick<T, K>
}

function isCid(value: unknown): boolean {
  try {
    return parseCid(String(value)) === value
  } catch {
    return false
  }
}
