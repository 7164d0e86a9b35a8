import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { folderStorage } from './folder-storage.ts'
import { storageContract } from './storage-contract.ts'

async function openFolder(place?: string) {
  const root = place ?? (await mkdtemp(join(tmpdir(), 'tower-storage-')))
  return {
    storage: folderStorage(root),
    place: root,
    async [Symbol.asyncDispose]() {
      if (!place) await rm(root, { recursive: true, force: true })
    },
  }
}

describe('a repository in a folder', () => {
  storageContract(openFolder)

  it.each(['../a', '/etc/passwd', 'a/../../b', 'a//b', '.drafts/x', '.publish.lock', 'a\\b', '', 'a/\0'])(
    'has no place for %j',
    async path => {
      await using opened = await openFolder()
      await expect(opened.storage.write(path, Buffer.from('x'))).rejects.toMatchObject({
        code: 'PATH_INVALID',
      })
      await expect(opened.storage.read(path)).rejects.toMatchObject({ code: 'PATH_INVALID' })
      await expect(opened.storage.remove(path)).rejects.toMatchObject({ code: 'PATH_INVALID' })
    },
  )

  it('leaves no draft behind, and clears away those of a publisher that died', async () => {
    await using opened = await openFolder()
    const { storage, place } = opened
    await storage.write('packs/a.pack', Buffer.from('a'))
    expect(await readdir(join(place, '.drafts'))).toEqual([])
    await writeFile(join(place, '.drafts/left-by-another'), 'half a pack')
    await using _held = await storage.lock()
    expect(await readdir(place)).not.toContain('.drafts')
  })

  it('does not list what links lead to', async () => {
    await using opened = await openFolder()
    await mkdir(join(opened.place, 'packs'))
    await symlink('/etc/hostname', join(opened.place, 'packs/link'))
    expect(await opened.storage.list('packs/')).toEqual([])
  })
})
