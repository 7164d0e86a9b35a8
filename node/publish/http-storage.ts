/**
 * A repository on a node or origin elsewhere, as `RepositoryStorage`: what `tower publish --to
 * http://…` writes through. The other side (`receiver.ts`) proves everything; here bytes are only
 * moved, large files in parts that go on after a cut.
 *
 * Packs and deltas are named by their digest, so they are spooled to a local folder first; that
 * folder also answers later reads of them, so that building the next delta fetches nothing again.
 */
import { randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { createSignature } from 'http-message-sig'
import { Agent, request } from 'undici'
import { EdgeError, type EdgeErrorCode } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { Spool } from '../../manifests/publish/spool.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import type { SigningKey } from '../../manifests/tuf/signing-key.ts'
import { SESSION_HEADER, SESSION_PATH, SIGNED_COMPONENTS } from './session.ts'

export interface HttpStorageOptions extends Abortable {
  /** `http://tower.example:8081/`; `/publish/` is below it. */
  readonly url: URL
  /** Any key that the repository lists; the first opens the session. */
  readonly keys: readonly SigningKey[]
  /** Kept between runs: what was uploaded need not be fetched again. */
  readonly spoolFolder: string
  readonly now: () => number
}

const CONNECT_MS = 10_000
const HEADERS_MS = 120_000
const PART_BYTES = 8 * 1024 * 1024
/** Uploads of one part are tried this often: a thin link is cut now and then. */
const ATTEMPTS = 5
const KEEP_ALIVE_MS = 20_000

export function httpStorage(options: HttpStorageOptions): RepositoryStorage {
  const client = new PublishClient(options)
  const spool = new Spool(options.spoolFolder)

  return {
    async read(path, range) {
      const local = await spool.read(path, range)
      if (local) return local
      if (range?.length === 0) return (await client.size(path)) === undefined ? undefined : new Uint8Array(0)
      const headers = range ? { range: `bytes=${range.offset}-${range.offset + range.length - 1}` } : {}
      return await client.read(path, headers)
    },

    size: path => client.size(path),

    async write(path, bytes, { ifAbsent = false } = {}) {
      await client.send('PUT', `files/${path}`, bytes, ifAbsent ? { 'if-none-match': '*' } : {})
    },

    add: (pathOf, pieces) =>
      spool.add(pathOf, pieces, ({ path, file, sizeBytes }) => client.upload(path, file, sizeBytes)),

    list: prefix => client.list(prefix),

    async remove(path) {
      await spool.remove(path)
      await client.send('DELETE', `files/${path}`)
    },

    lock: () => client.openSession(),
  }
}

class PublishClient {
  readonly #options: HttpStorageOptions
  readonly #agent = new Agent({
    connectTimeout: CONNECT_MS,
    headersTimeout: HEADERS_MS,
    bodyTimeout: HEADERS_MS,
  })
  #session: string | undefined

  constructor(options: HttpStorageOptions) {
    this.#options = options
  }

  /** @throws EdgeError `KEY_ABSENT`, `NOT_AUTHORISED`, `PUBLISH_CONFLICT` */
  async openSession(): Promise<AsyncDisposable> {
    const [key] = this.#options.keys
    if (!key) throw new EdgeError('KEY_ABSENT', 'no signing key was given')
    const { signature, signatureInput } = await createSignature(
      { kind: 'request', method: 'POST', targetUri: String(this.#at(SESSION_PATH)), fields: [] },
      {
        components: SIGNED_COMPONENTS,
        parameters: {
          created: Math.floor(this.#options.now() / 1000),
          keyid: key.keyId,
          alg: 'ed25519',
          nonce: randomBytes(16).toString('hex'),
        },
        signer: { algorithm: 'ed25519', sign: data => Buffer.from(key.sign(data), 'hex') },
      },
    )
    const answer = await this.#call('POST', SESSION_PATH, {
      headers: { signature, 'signature-input': signatureInput },
    })
    const { session } = (await answer.body.json()) as { session: string }
    this.#session = session
    const keptAlive = setInterval(() => void this.keepAlive(), KEEP_ALIVE_MS)
    return {
      [Symbol.asyncDispose]: async () => {
        clearInterval(keptAlive)
        await this.#call('DELETE', SESSION_PATH).catch(() => {}) // it ends by itself, too
        this.#session = undefined
        await this.#agent.close()
      },
    }
  }

  async read(path: string, headers: Readonly<Record<string, string>>): Promise<Buffer | undefined> {
    const answer = await this.#call('GET', `/publish/files/${path}`, { headers, absent: true })
    return answer.statusCode === 404
      ? void (await answer.body.dump())
      : Buffer.from(await answer.body.arrayBuffer())
  }

  async size(path: string): Promise<number | undefined> {
    const answer = await this.#call('HEAD', `/publish/files/${path}`, { absent: true })
    await answer.body.dump()
    return answer.statusCode === 404 ? undefined : Number(answer.headers['content-length'])
  }

  async list(prefix: string): Promise<string[]> {
    const answer = await this.#call('GET', `/publish/list/${prefix}`)
    return ((await answer.body.json()) as { paths: string[] }).paths
  }

  async send(
    method: 'PUT' | 'DELETE',
    path: string,
    body?: Uint8Array,
    headers: Record<string, string> = {},
  ): Promise<void> {
    const answer = await this.#call(method, `/publish/${path}`, { headers, ...(body && { body }) })
    await answer.body.dump()
  }

  /** A session without requests ends; hashing a large file can take longer than that. */
  async keepAlive(): Promise<void> {
    const answer = await this.#call('PUT', SESSION_PATH).catch(() => undefined)
    await answer?.body.dump()
  }

  /** Goes on from what has arrived, also from an earlier run's. */
  async upload(path: string, file: string, sizeBytes: number): Promise<void> {
    const url = `/publish/parts/${path}`
    for (let failures = 0; ; ) {
      const state = await this.#call('HEAD', url)
      await state.body.dump()
      if (state.headers['upload-complete'] === '?1') return
      const offset = Number(state.headers['upload-offset'])
      const end = Math.min(offset + PART_BYTES, sizeBytes)
      const headers = {
        'upload-offset': `${offset}`,
        'upload-length': `${sizeBytes}`,
        'content-length': `${end - offset}`,
      }
      const body = end > offset ? createReadStream(file, { start: offset, end: end - 1 }) : new Uint8Array(0)
      try {
        await (await this.#call('PATCH', url, { headers, body })).body.dump()
        failures = 0
      } catch (error) {
        if (++failures === ATTEMPTS || !(error instanceof EdgeError && error.code === 'UPSTREAM_UNREACHABLE'))
          throw error
      }
    }
  }

  async #call(
    method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    more: {
      headers?: Record<string, string>
      body?: Uint8Array | ReturnType<typeof createReadStream>
      absent?: boolean
    } = {},
  ) {
    const { headers = {}, body, absent = false } = more
    const session: Record<string, string> = this.#session ? { [SESSION_HEADER]: this.#session } : {}
    const { signal } = this.#options
    let answer: Awaited<ReturnType<typeof request>>
    try {
      answer = await request(this.#at(path), {
        method,
        headers: { ...session, ...headers },
        body: body ?? null,
        dispatcher: this.#agent,
        signal,
      })
    } catch (cause) {
      signal.throwIfAborted()
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new EdgeError('UPSTREAM_UNREACHABLE', `${this.#options.url.host}: ${reason}`, { cause })
    }
    if (answer.statusCode < 300 || (absent && answer.statusCode === 404)) return answer
    throw errorOf(answer.statusCode, await answer.body.text(), this.#options.url)
  }

  #at(path: string): URL {
    return new URL(path.slice(1), this.#options.url)
  }
}

/** The receiver's problem+json carries our code; anything else is somebody in between. */
function errorOf(status: number, text: string, url: URL): EdgeError {
  try {
    const { code, detail } = JSON.parse(text) as { code: EdgeErrorCode; detail?: string }
    return new EdgeError(code, `${url.host}: ${detail ?? code}`)
  } catch {
    return new EdgeError(
      'UPSTREAM_REFUSED',
      `${url.host} answered ${status}; is it a Towerlight node that takes releases?`,
    )
  }
}
