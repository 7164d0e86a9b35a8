/**
 * `/publish/…`: a repository that is published into over HTTP (docs/publishing.md).
 *
 * ```
 * POST   /publish/session          signed; answers {"session"}; one at a time
 * PUT    /publish/session          prolongs it: it ends after a minute of silence
 * DELETE /publish/session
 * GET    /publish/files/<path>     HEAD and Range as usual; anybody may read
 * GET    /publish/list/<folder>/   {"paths":[…]}
 * HEAD   /publish/parts/<path>     Upload-Offset: bytes that have arrived
 * PATCH  /publish/parts/<path>     appends at Upload-Offset; Upload-Length is the whole
 * PUT    /publish/files/<path>     small files: manifests and metadata; If-None-Match: * must be new
 * DELETE /publish/files/<path>     only what no accepted release needs
 * ```
 * Packs, deltas and targets are named by their digest and proven before they are kept. Metadata is
 * held back until `timestamp.json` comes; then a client's whole workflow runs over it, and either
 * all of it becomes visible, timestamp last, or nothing does. The same upload again changes nothing.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isSha256, type Sha256, sha256Of } from '../../manifests/digest.ts'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import { deltaPath, MANIFEST_BYTES_MAX, packPath, parseManifest } from '../../manifests/manifest.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import {
  type AcceptedState,
  findTarget,
  initialState,
  targetPaths,
  trustedRoot,
} from '../../manifests/tuf/accepted-state.ts'
import { parseTargets } from '../../manifests/tuf/metadata.ts'
import type { TufKey } from '../../manifests/tuf/public-key.ts'
import { loadRepository } from '../../manifests/tuf/repository.ts'
import { answerRepo, type RepoView } from '../http/repo-handler.ts'
import type { Route } from '../http/server.ts'
import { checkRelease, hashPrefixed } from './release-check.ts'
import { PublishSessions, SESSION_PATH } from './session.ts'
import { Uploads, type UploadLimits } from './uploads.ts'

export interface ReceiverOptions {
  readonly storage: RepositoryStorage
  /** The storage's packs and deltas, verified at each read. */
  readonly packs: RepoView
  /** For parts of files on their way in; same file system as the repository. */
  readonly uploadsFolder: string
  /** The root that an empty repository is begun from; without one it cannot be begun over HTTP. */
  readonly pinnedRoot?: Uint8Array
  readonly limits: UploadLimits
  readonly now: () => number
  /** A release has become visible. */
  readonly onRelease?: () => void
}

const METADATA = 'metadata/'
const TIMESTAMP = 'metadata/timestamp.json'
const METADATA_BYTES_MAX = 8 * 1024 * 1024
const CONTENT_PATH =
  /^(?:packs\/(?<pack>[0-9a-f]{64})\.pack|deltas\/(?<delta>[0-9a-f]{64})\.delta|targets\/(?:[a-z0-9][a-z0-9._-]{0,63}\/){0,2}(?<target>[0-9a-f]{64})\.[A-Za-z0-9._-]{1,100})$/
const METADATA_PATH = /^metadata\/(?:timestamp|[1-9]\d{0,9}\.[A-Za-z][A-Za-z0-9._-]{0,99})\.json$/

export function publishReceiver(options: ReceiverOptions): Route {
  const receiver = new Receiver(options)
  return { prefix: '/publish/', handle: (req, res) => receiver.handle(req, res) }
}

class Receiver {
  readonly #options: ReceiverOptions
  readonly #storage: RepositoryStorage
  readonly #sessions: PublishSessions
  readonly #uploads: Uploads
  readonly #staged = new Map<string, Uint8Array>()
  /** Writes are taken one after the other: what is checked is what becomes visible. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: ReceiverOptions) {
    this.#options = options
    this.#storage = options.storage
    this.#uploads = new Uploads(options.uploadsFolder, options.storage, options.limits)
    this.#sessions = new PublishSessions(() => this.#keys(), options.now)
  }

  /** Errors are for the server to answer. */
  async handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = (req.url ?? '').split('?', 1)[0] ?? ''
    if (url === SESSION_PATH) return await this.#session(req, res)
    const [, kind, path] = /^\/publish\/(files|parts|list)\/([A-Za-z0-9._/-]+)$/.exec(url) ?? []
    if (!kind || !path || path.split('/').includes('..'))
      throw new EdgeError('NOT_FOUND', 'no such part of /publish/')
    const reads = req.method === 'GET' || req.method === 'HEAD'
    if (kind === 'list' && reads) return sendJson(res, 200, { paths: await this.#storage.list(path) })
    if (kind === 'files' && reads) return await answerRepo(this.#view(), req, res, `/repo/${path}`)
    this.#sessions.require(req)
    if (kind === 'parts') return await this.#part(path, req, res)
    if (kind === 'files' && req.method === 'PUT') return await this.#put(path, req, res)
    if (kind === 'files' && req.method === 'DELETE') return await this.#remove(path, res)
    throw new EdgeError('METHOD_NOT_ALLOWED', `${req.method} is not answered here`)
  }

  async #session(req: IncomingMessage, res: ServerResponse): Promise<void> {
    if (req.method === 'POST') {
      const { token, keyId } = await this.#sessions.open(req)
      this.#staged.clear()
      await this.#uploads.removeOld(this.#options.now())
      return sendJson(res, 201, { session: token, key: keyId })
    }
    if (req.method === 'PUT') this.#sessions.require(req)
    else if (req.method === 'DELETE') {
      this.#sessions.close(req)
      this.#staged.clear()
    } else throw new EdgeError('METHOD_NOT_ALLOWED', 'POST opens a session, PUT prolongs it, DELETE ends it')
    res.writeHead(204).end()
  }

  /** What publishers may read back: as `/repo/`, and what they have staged themselves. */
  #view(): RepoView {
    const bytesOf = async (path: string) => this.#staged.get(path) ?? (await this.#signedFile(path))
    const { packs } = this.#options
    return {
      size: async path => (await packs.size(path)) ?? (await bytesOf(path))?.length,
      async read(path, range, options) {
        const piece = await packs.read(path, range, options)
        return piece ?? (await bytesOf(path))?.subarray(range.offset, range.offset + range.length)
      },
    }
  }

  /** Metadata, whose signatures its reader checks, and targets, which their name proves (I1). */
  async #signedFile(path: string): Promise<Uint8Array | undefined> {
    const bytes =
      METADATA_PATH.test(path) || CONTENT_PATH.test(path) ? await this.#storage.read(path) : undefined
    if (bytes && !path.startsWith(METADATA) && sha256Of(bytes) !== contentDigestOf(path)) {
      throw new EdgeError('CHUNK_CORRUPT', `${path} is not what its name says`)
    }
    return bytes
  }

  async #part(path: string, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const sha256 = contentDigestOf(path)
    const sizeBytes = await this.#storage.size(path)
    if (req.method === 'HEAD') {
      const received = sizeBytes ?? (await this.#uploads.receivedBytes(sha256))
      return void res
        .writeHead(204, {
          'Upload-Offset': received,
          'Upload-Complete': sizeBytes === undefined ? '?0' : '?1',
        })
        .end()
    }
    if (req.method !== 'PATCH') throw new EdgeError('METHOD_NOT_ALLOWED', 'HEAD and PATCH are answered here')
    const announced = countOf(req.headers['upload-length'], 'Upload-Length')
    const offset = countOf(req.headers['upload-offset'], 'Upload-Offset')
    if (sizeBytes !== undefined) return void res.writeHead(204, { 'Upload-Offset': sizeBytes }).end()
    const received = await this.#uploads.append({ path, sha256, sizeBytes: announced }, offset, req)
    res.writeHead(204, { 'Upload-Offset': received }).end()
  }

  async #put(path: string, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const isMetadata = METADATA_PATH.test(path)
    const bytes = await bodyOf(req, isMetadata ? METADATA_BYTES_MAX : MANIFEST_BYTES_MAX)
    const onlyNew = req.headers['if-none-match'] === '*'
    await this.#inTurn(async () => {
      if (isMetadata) await this.#putMetadata(path, bytes, onlyNew)
      else await this.#putContent(path, bytes)
    })
    res.writeHead(204).end()
  }

  async #putContent(path: string, bytes: Uint8Array): Promise<void> {
    const sha256 = contentDigestOf(path)
    if (sha256Of(bytes) !== sha256)
      throw new EdgeError('PUBLISH_REFUSED', `${path}: the bytes hash to ${sha256Of(bytes)}`)
    if (path.endsWith('.manifest.json')) parseManifest(bytes)
    if ((await this.#storage.size(path)) === undefined) await this.#storage.write(path, bytes)
  }

  async #putMetadata(path: string, bytes: Uint8Array, onlyNew: boolean): Promise<void> {
    const now = this.#staged.get(path) ?? (await this.#storage.read(path))
    if (now && Buffer.from(now).equals(bytes)) return
    if (now && onlyNew)
      throw new EdgeError('PUBLISH_CONFLICT', `${path} exists already: another release came in between`)
    this.#staged.set(path, bytes)
    const alone = path !== TIMESTAMP
    if (alone && !path.endsWith('.root.json')) return
    try {
      await this.#release()
    } catch (error) {
      // A new root may come before what is signed under it: it waits for the timestamp.
      if (!alone) this.#staged.clear()
      if (!alone || !isEdgeError(error)) throw error
    }
  }

  async #release(): Promise<void> {
    await checkRelease(this.#storage, await this.#state(), this.#staged, new Date(this.#options.now()))
    const timestamp = this.#staged.get(TIMESTAMP)
    for (const [path, bytes] of this.#staged) if (path !== TIMESTAMP) await this.#storage.write(path, bytes)
    if (timestamp) await this.#storage.write(TIMESTAMP, timestamp)
    this.#staged.clear()
    this.#options.onRelease?.()
  }

  async #remove(path: string, res: ServerResponse): Promise<void> {
    await this.#inTurn(async () => {
      if (await this.#isNeeded(path))
        throw new EdgeError('PUBLISH_REFUSED', `${path} belongs to the current release`)
      await this.#storage.remove(path)
    })
    res.writeHead(204).end()
  }

  /** Whether clients of the current release may ask for the file. Roots are for ever. */
  async #isNeeded(path: string): Promise<boolean> {
    const { state, snapshot } = await loadRepository(this.#storage, this.#options.pinnedRoot)
    const [, version, role = ''] = /^metadata\/(\d+)\.(.+)\.json$/.exec(path) ?? []
    if (version !== undefined) {
      const current = role === 'snapshot' ? snapshot.version : snapshot.meta.get(role)?.version
      return role === 'root' || (current !== undefined && Number(version) >= current)
    }
    if (path.startsWith(METADATA)) return true
    contentDigestOf(path)
    for (const target of targetPaths(state)) {
      const found = findTarget(state, target)
      if (found && (await this.#filesOf(target, found.sha256)).has(path)) return true
    }
    return false
  }

  /** The target's own file and, for a manifest, all packs and deltas that it names. */
  async #filesOf(target: string, sha256: string): Promise<ReadonlySet<string>> {
    const file = hashPrefixed(target, sha256)
    const manifest = target.endsWith('/manifest.json') ? await this.#storage.read(file) : undefined
    const { packs, deltas } = manifest ? parseManifest(manifest) : { packs: [], deltas: [] }
    return new Set([
      file,
      ...packs.map(pack => packPath(pack.sha256)),
      ...deltas.map(delta => deltaPath(delta.sha256)),
    ])
  }

  /** What the repository's own metadata prove now, expired or not; the pinned root when it is empty. */
  async #state(): Promise<AcceptedState> {
    const { pinnedRoot } = this.#options
    try {
      return (await loadRepository(this.#storage, pinnedRoot)).state
    } catch (error) {
      if (!isEdgeError(error, 'TRUST_ROOT_ABSENT') || !pinnedRoot) throw error
      return initialState(pinnedRoot)
    }
  }

  async #keys(): Promise<ReadonlyMap<string, TufKey>> {
    const state = await this.#state()
    const keys = new Map<string, TufKey>(trustedRoot(state).keys)
    for (const [name, bytes] of state.served?.roles ?? []) {
      for (const [keyId, key] of parseTargets(bytes, name).delegations?.keys ?? []) keys.set(keyId, key)
    }
    return keys
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(work)
    this.#last = turn.catch(() => undefined)
    await turn
  }
}

function contentDigestOf(path: string): Sha256 {
  const { pack, delta, target } = CONTENT_PATH.exec(path)?.groups ?? {}
  const sha256 = pack ?? delta ?? target
  if (!isSha256(sha256)) throw new EdgeError('PATH_INVALID', `${path} is not a path of a repository`)
  return sha256
}

function countOf(header: string | string[] | undefined, name: string): number {
  if (typeof header !== 'string' || !/^\d{1,15}$/.test(header))
    throw new EdgeError('REQUEST_INVALID', `${name}: a number of bytes is needed`)
  return Number(header)
}

async function bodyOf(req: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of req as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes > bytesMax) throw new EdgeError('TRUST_TOO_LONG', `more than ${bytesMax} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

function sendJson(res: ServerResponse, status: number, body: unknown): void {
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body))
}
