/**
 * The tower's own certificate authority: one for its server certificate and for the client certificates
 * that carry roles. Made once by `openssl`; renewed when less than a month is left or a name is new.
 *
 * Keys are P-256 (browsers know no Ed25519 certificates), readable by their owner only. The
 * authority's key signs nothing but these; keep `ca.key` off the tower if you can.
 */
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EdgeError } from '../manifests/errors.ts'
import type { TlsFiles } from './settings.ts'

const run = promisify(execFile)
const DAY_MS = 86_400_000
const AUTHORITY_DAYS = 3_650
/** The longest that Apple's platforms accept. */
const SERVER_DAYS = 825
const CLIENT_DAYS = 397
const RENEW_DAYS = 30

export const ROLES = ['tower_operator', 'community_admin', 'national_auditor', 'publisher'] as const
export type Role = (typeof ROLES)[number]

/**
 * Makes what is missing or about to expire in `folder`, keeps the rest.
 * @throws EdgeError `DEPENDENCY_ABSENT` without `openssl`.
 */
export async function ensureCertificates(
  folder: string,
  names: readonly string[],
  now: Date,
): Promise<TlsFiles & { readonly renewed: boolean }> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const authority = await ensureAuthority(folder, now)
  const files = { certificate: join(folder, 'server.crt'), key: join(folder, 'server.key') }
  const known = await readCertificate(files.certificate)
  const good =
    known !== undefined && stillGood(known, now) && known.checkIssued(authority) && covers(known, names)
  if (!good) {
    const alternatives = names.map(name => `${isIP(name) ? 'IP' : 'DNS'}:${name}`).join(',')
    await issue(folder, 'server', `/CN=${names[0]}`, SERVER_DAYS, [
      `subjectAltName=${alternatives}`,
      'basicConstraints=critical,CA:FALSE',
      'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=serverAuth',
    ])
  }
  return { ...files, clientCa: join(folder, 'ca.crt'), public: false, renewed: !good }
}

/**
 * A client certificate for a person or a machine: `<name>.crt`, `<name>.key` in `folder`.
 * @throws EdgeError `REQUEST_INVALID` for an odd name or role, `KEY_ABSENT` without an authority here.
 */
export async function issueClientCertificate(
  folder: string,
  name: string,
  role: string,
): Promise<{ certificate: string; key: string }> {
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/i.test(name) || name === 'ca' || name === 'server') {
    throw new EdgeError('REQUEST_INVALID', 'a name of letters, digits, dot, _ and - is needed')
  }
  if (!ROLES.some(known => known === role))
    throw new EdgeError('REQUEST_INVALID', `a role is one of ${ROLES.join(', ')}`)
  if (!(await readCertificate(join(folder, 'ca.crt')))) {
    throw new EdgeError('KEY_ABSENT', 'there is no authority yet: tower nginx --write makes it')
  }
  await issue(folder, name, `/O=Towerlight/OU=${role}/CN=${name}`, CLIENT_DAYS, [
    'basicConstraints=critical,CA:FALSE',
    'keyUsage=critical,digitalSignature',
    'extendedKeyUsage=clientAuth',
  ])
  return { certificate: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) }
}

async function ensureAuthority(folder: string, now: Date): Promise<X509Certificate> {
  const path = join(folder, 'ca.crt')
  const known = await readCertificate(path)
  if (known && stillGood(known, now)) return known
  await using scratch = await scratchIn(folder)
  const [key, certificate] = [join(scratch.path, 'ca.key'), join(scratch.path, 'ca.crt')]
  await openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key)
  await openssl(
    ...['req', '-x509', '-new', '-key', key, '-sha256', '-days', String(AUTHORITY_DAYS), '-out', certificate],
    ...['-subj', '/O=Towerlight/CN=Towerlight tower authority'],
    ...[
      '-addext',
      'basicConstraints=critical,CA:TRUE,pathlen:0',
      '-addext',
      'keyUsage=critical,keyCertSign,cRLSign',
    ],
  )
  await keep(key, join(folder, 'ca.key'), 0o600)
  await keep(certificate, path, 0o644)
  return new X509Certificate(await readFile(path))
}

async function issue(
  folder: string,
  name: string,
  subject: string,
  days: number,
  extensions: readonly string[],
): Promise<void> {
  await using scratch = await scratchIn(folder)
  const at = (suffix: string) => join(scratch.path, `${name}.${suffix}`)
  await writeFile(at('ext'), `${extensions.join('\n')}\n`)
  await openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', at('key'))
  await openssl('req', '-new', '-key', at('key'), '-sha256', '-subj', subject, '-out', at('csr'))
  await openssl(
    ...[
      'x509',
      '-req',
      '-in',
      at('csr'),
      '-sha256',
      '-days',
      String(days),
      '-extfile',
      at('ext'),
      '-out',
      at('crt'),
    ],
    ...[
      '-CA',
      join(folder, 'ca.crt'),
      '-CAkey',
      join(folder, 'ca.key'),
      '-set_serial',
      `0x${randomSerial()}`,
    ],
  )
  await keep(at('key'), join(folder, `${name}.key`), 0o600)
  await keep(at('crt'), join(folder, `${name}.crt`), 0o644)
}

async function openssl(...args: string[]): Promise<void> {
  try {
    await run('openssl', args)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
    throw new EdgeError('DEPENDENCY_ABSENT', 'openssl makes the certificates: apt-get install openssl', {
      cause,
    })
  }
}

async function readCertificate(path: string): Promise<X509Certificate | undefined> {
  try {
    return new X509Certificate(await readFile(path))
  } catch {
    return undefined // absent or unreadable: made anew
  }
}

function stillGood(certificate: X509Certificate, now: Date): boolean {
  return Date.parse(certificate.validTo) - now.getTime() > RENEW_DAYS * DAY_MS
}

function covers(certificate: X509Certificate, names: readonly string[]): boolean {
  return names.every(name =>
    isIP(name) ? certificate.checkIP(name) : certificate.subjectAltName?.includes(`DNS:${name}`),
  )
}

async function keep(from: string, to: string, mode: number): Promise<void> {
  await chmod(from, mode)
  await rename(from, to)
}

async function scratchIn(folder: string): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(folder, 'draft-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** 127 random bits, positive. */
function randomSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[0] = (bytes[0]! & 0x7f) | 0x40
  return Buffer.from(bytes).toString('hex')
}
