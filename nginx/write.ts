/**
 * Writes NGINX's folder for a node, and has NGINX itself check it.
 */
import { execFile } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EdgeError } from '../manifests/errors.ts'
import { ensureCertificates } from './certificates.ts'
import { nginxConfig } from './config-text.ts'
import { type NginxBuild, type NginxSettings, type TlsFiles, parseNginxBuild } from './settings.ts'

const run = promisify(execFile)

export interface WrittenNginx {
  readonly config: string
  readonly changed: boolean
  readonly certificate: string
  /** Where phones and browsers can get the authority that signed it; absent with a certificate of your own. */
  readonly authority?: string
  /** Whether `nginx -t` approved; undefined when NGINX is not installed. */
  readonly tested?: boolean
  readonly build?: NginxBuild
}

export type WriteRequest = Omit<NginxSettings, 'tls'> & {
  /** A certificate of your own for the public listeners. */
  readonly provided?: { readonly certificate: string; readonly key: string }
}

/**
 * Writing the same again changes nothing.
 * @throws EdgeError `CONFIG_INVALID` when NGINX does not accept the result, which then stays unused as a draft.
 */
export async function writeNginx({ provided, ...settings }: WriteRequest, now: Date): Promise<WrittenNginx> {
  const { folder, names } = settings
  for (const name of ['logs', 'temp', 'cache']) await mkdir(join(folder, name), { recursive: true })
  const own = await ensureCertificates(join(folder, 'tls'), names, now)
  const tls: TlsFiles = provided ? { ...provided, clientCa: own.clientCa, public: true } : own
  const build = await nginxBuild()
  const text = nginxConfig({ ...settings, tls }, build ?? CAUTIOUS)

  const config = join(folder, 'nginx.conf')
  const draft = `${config}.draft`
  await writeFile(draft, text)
  if (build) await test(draft)
  const before = await readFile(config, 'utf8').catch(() => undefined)
  await rename(draft, config)
  return {
    config,
    changed: before !== text,
    certificate: tls.certificate,
    ...(provided ? {} : { authority: own.clientCa }),
    ...(build ? { tested: true, build } : {}),
  }
}

/** What any NGINX of the last years can do. */
const CAUTIOUS: NginxBuild = { version: [1, 22, 0], http2: true, http3: false }

/** Undefined when NGINX is not installed. */
export async function nginxBuild(): Promise<NginxBuild | undefined> {
  try {
    return parseNginxBuild((await run('nginx', ['-V'])).stderr)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw cause
  }
}

async function test(path: string): Promise<void> {
  try {
    await run('nginx', ['-t', '-c', path])
  } catch (cause) {
    const said = String((cause as { stderr?: string }).stderr ?? cause)
    throw new EdgeError('CONFIG_INVALID', `nginx -t refuses ${path}: ${said.trim().slice(0, 1_000)}`, {
      cause,
    })
  }
}
