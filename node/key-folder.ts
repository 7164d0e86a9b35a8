/**
 * Keys as files: one Ed25519 PEM each, readable by its owner only, anywhere below a folder. Names are
 * for people; which key signs for what is told by its key id in the repository's metadata.
 *
 * `root.json` in the folder is the root that its holder trusts: repositories that cannot prove
 * themselves from it are not signed for. A file that ends in `.retired.pem` is kept and not used.
 */
import { constants } from 'node:fs'
import { chmod, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EdgeError } from '../manifests/errors.ts'
import {
  generateKeyPem,
  parseSigningKey,
  publicPemOf,
  type SigningKey,
} from '../manifests/tuf/signing-key.ts'

export interface KeyFile extends SigningKey {
  readonly path: string
}

const RETIRED = '.retired.pem'
const DEPTH_MAX = 3
const PEM_BYTES_MAX = 16 << 10

/**
 * All keys below the folders, in path order; keys that occur twice come once.
 * @throws EdgeError `KEY_ABSENT` when a folder cannot be read, `KEY_INVALID` naming the file.
 */
export async function loadKeys(folders: readonly string[]): Promise<KeyFile[]> {
  const keys = new Map<string, KeyFile>()
  for (const folder of folders) {
    for (const path of await pemFiles(folder, DEPTH_MAX)) {
      const key = await loadKey(path)
      if (key && !keys.has(key.keyId)) keys.set(key.keyId, key)
    }
  }
  return [...keys.values()]
}

/** The root that the holder of these keys trusts, if a folder has one. */
export async function loadPinnedRoot(folders: readonly string[]): Promise<Uint8Array | undefined> {
  for (const folder of folders) {
    const bytes = await readFile(join(folder, 'root.json')).catch(() => undefined)
    if (bytes) return bytes
  }
  return undefined
}

export async function savePinnedRoot(folder: string, bytes: Uint8Array): Promise<void> {
  await rm(join(folder, 'root.json'), { force: true })
  await writeNew(join(folder, 'root.json'), bytes, 0o644)
}

/** The key `<folder>/<name>.pem`, made when it is not there yet: an interrupted command goes on with it. */
export async function keyNamed(folder: string, name: string): Promise<KeyFile> {
  const path = join(folder, `${name}.pem`)
  await mkdir(dirname(path), { recursive: true, mode: 0o700 }).catch(cause => {
    throw new EdgeError('KEY_ABSENT', `cannot make the key folder ${dirname(path)}`, { cause })
  })
  await writeNew(path, Buffer.from(generateKeyPem()), 0o600)
  const key = await loadKey(path)
  if (!key) throw new EdgeError('KEY_INVALID', `${path} is not a private key`)
  return key
}

/** Its public half, beside it as `.pub`. @returns where. */
export async function writePublicKey(path: string): Promise<string> {
  const place = path.replace(/\.pem$/, '.pub')
  await writeNew(place, Buffer.from(publicPemOf(await readFile(path, 'utf8'))), 0o644)
  return place
}

/** Out of use, not gone: its name changes. */
export async function retireKey({ path }: KeyFile): Promise<void> {
  await rename(path, path.replace(/\.pem$/, RETIRED))
}

async function pemFiles(folder: string, depth: number): Promise<string[]> {
  let entries
  try {
    entries = await readdir(folder, { withFileTypes: true })
  } catch (cause) {
    throw new EdgeError(
      'KEY_ABSENT',
      `cannot read the key folder ${folder}: give it with --keys, or make keys with tower keys init`,
      { cause },
    )
  }
  const found: string[] = []
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name)
    if (entry.isDirectory() && depth > 1) found.push(...(await pemFiles(path, depth - 1)))
    else if (entry.isFile() && entry.name.endsWith('.pem') && !entry.name.endsWith(RETIRED)) found.push(path)
  }
  return found
}

/** @returns `undefined` for a public key: those lie beside private ones to be handed over. */
async function loadKey(path: string): Promise<KeyFile | undefined> {
  let pem: string
  try {
    await using file = await open(path, constants.O_RDONLY)
    const { size } = await file.stat()
    if (size > PEM_BYTES_MAX) throw new EdgeError('KEY_INVALID', `${path} is too long for a key`)
    pem = await file.readFile('utf8')
  } catch (cause) {
    if (cause instanceof EdgeError) throw cause
    throw new EdgeError('KEY_ABSENT', `cannot read the key ${path}`, { cause })
  }
  if (pem.includes('BEGIN PUBLIC KEY')) return undefined
  try {
    return { ...parseSigningKey(pem), path }
  } catch (cause) {
    throw new EdgeError(
      'KEY_INVALID',
      `${path}: not an Ed25519 private key in PEM form without a pass phrase`,
      { cause },
    )
  }
}

/** Leaves a file that is there as it is. */
async function writeNew(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  try {
    await using file = await open(path, 'wx', mode)
    await file.writeFile(bytes)
    await file.sync()
    await chmod(path, mode) // whatever the umask says
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return
    throw new EdgeError('KEY_ABSENT', `cannot write ${path}`, { cause })
  }
}
