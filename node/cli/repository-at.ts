/**
 * The repository that `--to` names: a folder, a node or origin that receives releases
 * (`http://…`), or an S3 bucket (`s3+https://KEY:SECRET@host/bucket`, or `s3` for TOWER_S3_URL).
 */
import { join, resolve } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'
import type { Abortable } from '../../manifests/extent.ts'
import { folderStorage } from '../../manifests/publish/folder-storage.ts'
import type { RepositoryStorage } from '../../manifests/publish/storage.ts'
import type { SigningKey } from '../../manifests/tuf/signing-key.ts'
import type { NodeConfig } from '../config.ts'

export interface RepositoryAtOptions extends Abortable {
  readonly config: NodeConfig
  readonly keys: readonly SigningKey[]
}

const S3_CALL_MS = 60_000
const S3_CONCURRENCY = 4

/** @throws EdgeError `REQUEST_INVALID` for a URL of another kind; of the place itself, later. */
export async function repositoryAt(
  to: string,
  { config, keys, signal }: RepositoryAtOptions,
): Promise<RepositoryStorage> {
  const url = to === 's3' ? config.s3Url && `s3+${config.s3Url}` : to
  if (url === undefined) throw new EdgeError('REQUEST_INVALID', 'for --to s3, set TOWER_S3_URL')
  const [, s3, scheme] = /^(s3\+)?([a-z][a-z0-9+.-]*):\/\//i.exec(url) ?? []
  if (scheme === undefined) return folderStorage(resolve(url))
  if (scheme === 'file') return folderStorage(new URL(url).pathname)

  const spoolFolder = join(config.data, 'publish-spool', sha256Of(url).slice(0, 16))
  if (s3 && /^https?$/.test(scheme)) {
    const { openS3Storage } = await import('../../pinning/s3-storage.ts')
    const place = {
      url: url.slice(s3.length),
      region: 'us-east-1',
      callMs: S3_CALL_MS,
      concurrency: S3_CONCURRENCY,
    }
    return await openS3Storage({ ...place, spoolFolder, now: Date.now, signal })
  }
  if (/^https?$/.test(scheme)) {
    const { httpStorage } = await import('../publish/http-storage.ts')
    return httpStorage({ url: new URL(url), keys, spoolFolder, now: Date.now, signal })
  }
  throw new EdgeError('REQUEST_INVALID', `--to ${to}: a folder, http(s)://…, s3+http(s)://… or s3 is needed`)
}
