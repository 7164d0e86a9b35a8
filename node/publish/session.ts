/**
 * Who may upload, one publisher at a time.
 *
 * A session is opened by one request signed with RFC 9421 (HTTP Message Signatures) by an Ed25519
 * key that the repository's trusted metadata lists in any role; it gets a random token for the
 * rest. The session only lets bytes in and keeps others out meanwhile: what becomes visible is
 * decided by the signatures on the metadata alone.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isSignatureError, verifySignature } from 'http-message-sig'
import { EdgeError } from '../../manifests/errors.ts'
import { isSignedBy, type TufKey } from '../../manifests/tuf/public-key.ts'

export const SESSION_PATH = '/publish/session'
export const SESSION_HEADER = 'tower-publish-session'
export const SIGNED_COMPONENTS = ['@method', '@path'] as const
/** A publisher that says nothing for this long lets go of the repository. */
const IDLE_MS = 60_000
const SIGNATURE_SECONDS_MAX = 300
const CLOCK_SKEW_SECONDS = 60

export class PublishSessions {
  readonly #now: () => number
  readonly #keys: () => Promise<ReadonlyMap<string, TufKey>>
  readonly #usedNonces = new Map<string, number>()
  #open: { readonly token: Buffer; readonly keyId: string; usedAtMs: number } | undefined

  /** @param keys those that may open a session, by key id. */
  constructor(keys: () => Promise<ReadonlyMap<string, TufKey>>, now: () => number) {
    this.#keys = keys
    this.#now = now
  }

  /** @throws EdgeError `NOT_AUTHORISED`, `PUBLISH_CONFLICT` while another session is open. */
  async open(req: IncomingMessage): Promise<{ token: string; keyId: string }> {
    const keyId = await this.#signerOf(req)
    if (this.#open && this.#now() - this.#open.usedAtMs < IDLE_MS) {
      throw new EdgeError(
        'PUBLISH_CONFLICT',
        'somebody else is publishing here: wait until that has ended, then publish again',
      )
    }
    const token = randomBytes(32)
    this.#open = { token, keyId, usedAtMs: this.#now() }
    return { token: token.toString('hex'), keyId }
  }

  /** @throws EdgeError `NOT_AUTHORISED` */
  require(req: IncomingMessage): void {
    const given = Buffer.from(String(req.headers[SESSION_HEADER] ?? ''), 'hex')
    const open = this.#open
    if (!open || given.length !== open.token.length || !timingSafeEqual(given, open.token)) {
      throw new EdgeError(
        'NOT_AUTHORISED',
        'open a session first: it may have ended after a minute of silence',
      )
    }
    open.usedAtMs = this.#now()
  }

  close(req: IncomingMessage): void {
    this.require(req)
    this.#open = undefined
  }

  async #signerOf(req: IncomingMessage): Promise<string> {
    const keys = await this.#keys()
    const message = {
      kind: 'request' as const,
      method: req.method ?? '',
      targetUri: `http://${req.headers.host ?? 'node.invalid'}${req.url}`,
      fields: fieldsOf(req),
    }
    try {
      const { parameters } = await verifySignature(message, {
        policy: {
          algorithms: ['ed25519'],
          requiredComponents: SIGNED_COMPONENTS,
          requiredParameters: ['created', 'keyid', 'nonce'],
          maxAge: SIGNATURE_SECONDS_MAX,
          clockSkew: CLOCK_SKEW_SECONDS,
          now: Math.floor(this.#now() / 1000),
        },
        resolveVerifier: ({ parameters }) => verifierOf(keys.get(String(parameters.keyid))),
      })
      this.#requireNew(String(parameters.nonce))
      return String(parameters.keyid)
    } catch (cause) {
      if (!isSignatureError(cause)) throw cause
      const hint = 'it needs a key that this repository lists, and clocks that agree within a minute'
      throw new EdgeError(
        'NOT_AUTHORISED',
        `the request's signature was not accepted (${cause.code}): ${hint}`,
        { cause },
      )
    }
  }

  #requireNew(nonce: string): void {
    const now = this.#now()
    const keptMs = (SIGNATURE_SECONDS_MAX + CLOCK_SKEW_SECONDS) * 1000
    for (const [old, atMs] of this.#usedNonces) if (now - atMs > keptMs) this.#usedNonces.delete(old)
    if (this.#usedNonces.has(nonce)) throw new EdgeError('NOT_AUTHORISED', 'this request was sent before')
    this.#usedNonces.set(nonce, now)
  }
}

function verifierOf(key: TufKey | undefined) {
  if (key?.keytype !== 'ed25519')
    throw new EdgeError('NOT_AUTHORISED', 'the key is not one of this repository')
  return {
    algorithm: 'ed25519',
    verify: (data: Uint8Array, signature: Uint8Array) =>
      isSignedBy(key, data, Buffer.from(signature).toString('hex')),
  }
}

function fieldsOf(req: IncomingMessage): { name: string; value: string }[] {
  const fields = []
  for (let at = 0; at < req.rawHeaders.length; at += 2) {
    fields.push({ name: req.rawHeaders[at] ?? '', value: req.rawHeaders[at + 1] ?? '' })
  }
  return fields
}
