/**
 * The files of a folder that is to be published. Symbolic links are never followed: what they lead
 * to may lie outside, or change without the folder changing. They and other special files are left
 * out and reported; a name that cannot be published ends the publication with a clear message.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { EdgeError } from '../errors.ts'
import { comparePaths, parseItemPath } from '../item-path.ts'

export interface FolderFiles {
  /** Item paths, sorted; at least one. */
  readonly paths: readonly string[]
  readonly skipped: readonly { readonly path: string; readonly why: string }[]
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws EdgeError `PUBLISH_FOLDER_UNREADABLE`, `PUBLISH_FOLDER_EMPTY`, `PATH_INVALID` */
export async function folderFiles(folder: string): Promise<FolderFiles> {
  const paths: string[] = []
  const skipped: { path: string; why: string }[] = []

  const visit = async (prefix: string): Promise<void> => {
    for (const entry of await readFolder(join(folder, prefix))) {
      const path = parseItemPath(prefix + nameOf(entry.name, prefix))
      if (entry.isDirectory()) await visit(`${path}/`)
      else if (entry.isFile()) paths.push(path)
      else
        skipped.push({
          path,
          why: entry.isSymbolicLink() ? 'a symbolic link: put the file itself here' : 'not a regular file',
        })
    }
  }
  await visit('')

  if (paths.length === 0) {
    const hint =
      skipped.length > 0 ? ` (${skipped.length} symbolic links or special files were left out)` : ''
    throw new EdgeError('PUBLISH_FOLDER_EMPTY', `there is no file in ${folder}${hint}: nothing to publish`)
  }
  return { paths: paths.sort(comparePaths), skipped }
}

async function readFolder(path: string) {
  try {
    return await readdir(path, { withFileTypes: true, encoding: 'buffer' })
  } catch (cause) {
    throw unreadable(
      path,
      (await isOther(path)) ? 'it is not a folder' : 'check that it exists and that you may read it',
      cause,
    )
  }
}

async function isOther(path: string): Promise<boolean> {
  return await stat(path).then(
    found => !found.isDirectory(),
    () => false,
  )
}

export function unreadable(path: string, what: string, cause: unknown): EdgeError {
  const { code = 'unknown error' } = cause as NodeJS.ErrnoException
  return new EdgeError('PUBLISH_FOLDER_UNREADABLE', `cannot read ${path} (${code}): ${what}`, { cause })
}

/** File names are bytes; ours are Unicode. */
function nameOf(name: Buffer, prefix: string): string {
  try {
    return utf8.decode(name)
  } catch (cause) {
    throw new EdgeError(
      'PATH_INVALID',
      `the name ${JSON.stringify(name.toString('latin1'))} in ${prefix || 'the folder'} is not UTF-8: rename it`,
      { cause },
    )
  }
}
