/**
 * Which format the data folder is in: a line of text with its own check, so that a flipped bit in it
 * is not taken for a store from the future.
 */
import { readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { EdgeError } from '../../manifests/errors.ts'

const FORMAT = 1
const FILE = 'store-format'

/** @throws EdgeError `STORE_FORMAT` when a newer version wrote this store. */
export async function checkFormat(folder: string, mayWrite: boolean): Promise<void> {
  const path = join(folder, FILE)
  const version = versionIn(textOf(path))
  if (version !== undefined && version > FORMAT) {
    throw new EdgeError(
      'STORE_FORMAT',
      `${folder} was written by a newer version (format ${version}, known up to ${FORMAT}): upgrade the node`,
    )
  }
  if (version !== undefined || !mayWrite) return
  const draft = `${path}.draft`
  {
    await using file = await open(draft, 'w')
    await file.writeFile(formatLine(FORMAT))
    await file.sync()
  }
  await rename(draft, path)
}

export function formatLine(version: number): string {
  const words = `towerlight-store-v${version}`
  return `${words} ${sha256Of(words).slice(0, 16)}\n`
}

function versionIn(text: string): number | undefined {
  const version = /^towerlight-store-v(\d{1,6}) /.exec(text)?.[1]
  return version !== undefined && text === formatLine(Number(version)) ? Number(version) : undefined
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
