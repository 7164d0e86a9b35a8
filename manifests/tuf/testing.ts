/**
 * For tests: a repository in memory with all its keys, and a forger who edits and signs its files.
 */
import { sha256Of, type Sha256 } from '../digest.ts'
import { EdgeError } from '../errors.ts'
import type { RepositoryStorage } from '../publish/storage.ts'
import { acceptUpdate, type UpdateRequest } from './accept.ts'
import { initialState, type AcceptedState } from './accepted-state.ts'
import { createRepository, rotateRole, setPublisher, type RoleSetup } from './ceremony.ts'
import { canonicalBytes, type JsonObject } from './json.ts'
import type { TopLevelRole } from './metadata.ts'
import { releaseSigner } from './release-signer.ts'
import { loadRepository } from './repository.ts'
import { generateKeyPem, parseSigningKey, type SigningKey } from './signing-key.ts'

export const START = new Date('2026-03-01T12:00:00Z')
export const DAY_MS = 86_400_000
const HEALTH: Readonly<Record<string, readonly string[]>> = { health: ['health/*/manifest.json'] }

export interface MemoryStorage extends RepositoryStorage {
  readonly files: Map<string, Uint8Array>
  /** Called before each write; what it throws, the write throws. */
  beforeWrite: (path: string) => void
}

export function memoryStorage(): MemoryStorage {
  const files = new Map<string, Uint8Array>()
  const storage: MemoryStorage = {
    files,
    beforeWrite: () => undefined,
    async read(path, range) {
      const bytes = files.get(path)
      return range ? bytes?.subarray(range.offset, range.offset + range.length) : bytes
    },
    size: async path => files.get(path)?.length,
    async write(path, bytes, { ifAbsent = false } = {}) {
      storage.beforeWrite(path)
      if (ifAbsent && files.has(path)) throw new EdgeError('PUBLISH_CONFLICT', path)
      files.set(path, Buffer.from(bytes))
    },
    async add(pathOf, pieces) {
      const bytes = Buffer.concat(await Array.fromAsync(pieces))
      const sha256 = sha256Of(bytes)
      await storage.write(pathOf(sha256), bytes)
      return { sha256, sizeBytes: bytes.length }
    },
    list: async prefix => [...files.keys()].filter(path => path.startsWith(prefix)).toSorted(),
    async remove(path) {
      files.delete(path)
    },
    lock: async () => ({ [Symbol.asyncDispose]: async () => undefined }),
  }
  return storage
}

export function newKeys(count: number): SigningKey[] {
  return Array.from({ length: count }, () => parseSigningKey(generateKeyPem()))
}

export class TestRepository {
  readonly storage: MemoryStorage
  /** Every key that was ever made. */
  readonly keys: SigningKey[] = []
  readonly byRole = new Map<string, SigningKey[]>()
  now = START

  constructor(storage: MemoryStorage) {
    this.storage = storage
  }

  static async open({ rootKeys = 1, threshold = 1, publishers = HEALTH } = {}): Promise<TestRepository> {
    const repository = new TestRepository(memoryStorage())
    await createRepository(repository.context, {
      root: { keys: repository.newKeys('root', rootKeys), threshold },
      targets: { keys: repository.newKeys('targets', 1), threshold: 1 },
      snapshot: { keys: repository.newKeys('snapshot', 1), threshold: 1 },
      timestamp: { keys: repository.newKeys('timestamp', 1), threshold: 1 },
    })
    for (const [name, paths] of Object.entries(publishers)) await repository.addPublisher(name, paths)
    return repository
  }

  get context() {
    return { storage: this.storage, keys: this.keys, now: this.now }
  }

  get root(): Uint8Array {
    return this.storage.files.get('metadata/1.root.json')!
  }

  newKeys(role: string, count: number): SigningKey[] {
    const keys = newKeys(count)
    this.keys.push(...keys)
    this.byRole.set(role, keys)
    return keys
  }

  async addPublisher(name: string, paths: readonly string[]): Promise<void> {
    const base = await loadRepository(this.storage)
    await setPublisher(this.context, base, { name, keys: this.newKeys(name, 1), threshold: 1, paths })
  }

  async publish(targetPath: string, text: string, publisher?: string): Promise<Sha256> {
    const bytes = Buffer.from(text)
    const sha256 = sha256Of(bytes)
    const [folder, name] = [
      targetPath.slice(0, targetPath.lastIndexOf('/') + 1),
      targetPath.split('/').at(-1),
    ]
    await this.storage.write(`targets/${folder}${sha256}.${name}`, bytes)
    await releaseSigner({ keys: this.keys, publisher }).sign({ targetPath, bytes }, this.storage, this.now)
    return sha256
  }

  async rotate(
    role: TopLevelRole,
    setup: Partial<RoleSetup> & { readonly count?: number } = {},
  ): Promise<void> {
    const base = await loadRepository(this.storage)
    const { keyIds, threshold } = base.root.roles[role]
    const keys = setup.keys ?? this.newKeys(role, setup.count ?? keyIds.size)
    await rotateRole(this.context, base, role, { keys, threshold: setup.threshold ?? threshold })
  }

  /** From the first root on, or on top of `state`. */
  accept(
    state: AcceptedState = initialState(this.root),
    request: Partial<UpdateRequest> = {},
  ): Promise<AcceptedState> {
    return acceptUpdate({ state, now: this.now, fetchMetadata: this.fetchMetadata, ...request })
  }

  readonly fetchMetadata = async (name: string): Promise<Uint8Array | undefined> =>
    this.storage.files.get(`metadata/${name}`)

  signed(name: string): SignedJson {
    const bytes = this.storage.files.get(`metadata/${name}`)
    if (!bytes) throw new Error(`there is no ${name}`)
    return (JSON.parse(Buffer.from(bytes).toString()) as { signed: SignedJson }).signed
  }

  /** Puts an edited file in place, signed by these keys (default: the role's own). */
  forge(
    name: string,
    edit: JsonObject,
    { as = name, by }: { as?: string; by?: readonly SigningKey[] } = {},
  ): Buffer {
    const role = name.replace(/^\d+\./, '').replace('.json', '')
    const signed = { ...this.signed(name), ...edit }
    const message = canonicalBytes(signed)
    const signatures = (by ?? this.byRole.get(role) ?? []).map(key => ({
      keyid: key.keyId,
      sig: key.sign(message),
    }))
    const bytes = Buffer.from(JSON.stringify({ signatures, signed }))
    this.storage.files.set(`metadata/${as}`, bytes)
    return bytes
  }

  /** As it is now, to be put back later. */
  saved(): ReadonlyMap<string, Uint8Array> {
    return new Map(this.storage.files)
  }

  restore(files: ReadonlyMap<string, Uint8Array>): void {
    this.storage.files.clear()
    for (const [path, bytes] of files) this.storage.files.set(path, bytes)
  }
}

export function metaOf(version: number, bytes: Uint8Array): JsonObject {
  return { version, length: bytes.length, hashes: { sha256: sha256Of(bytes) } }
}

/** What tests look at in signed objects; each has some of it. */
export interface SignedJson extends JsonObject {
  readonly version: number
  readonly meta: Readonly<Record<string, { readonly version: number }>>
  readonly keys: JsonObject
  readonly roles: JsonObject
  readonly delegations: { readonly keys: JsonObject; readonly roles: readonly JsonObject[] }
}

export function snapshotVersion(repository: TestRepository): number {
  return repository.signed('timestamp.json').meta['snapshot.json']!.version
}

export function currentSnapshot(repository: TestRepository): SignedJson {
  return repository.signed(`${snapshotVersion(repository)}.snapshot.json`)
}

/** Snapshot and timestamp with real keys around whatever a forger did. */
export function republish(repository: TestRepository, version: number, meta: object): void {
  const from = `${snapshotVersion(repository)}.snapshot.json`
  const bytes = repository.forge(from, { version, meta }, { as: `${version}.snapshot.json` })
  const timestamp = repository.signed('timestamp.json')
  repository.forge('timestamp.json', {
    version: timestamp.version + 1,
    meta: { 'snapshot.json': metaOf(version, bytes) },
  })
}
