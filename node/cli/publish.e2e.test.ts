import { mkdir, mkdtempDisposable, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { tower } from './testing.ts'

const DATASET = 'education/course'

/** A repository with one publisher, and a folder with a few awkward files. */
async function openPublisher() {
  const folder = await mkdtempDisposable(join(tmpdir(), 'towerlight-publish-'))
  const cwd = folder.path
  const course = join(cwd, 'my course')
  await mkdir(join(course, 'deep', 'deeper'), { recursive: true })
  await writeFile(join(course, 'empty.txt'), '')
  await writeFile(join(course, 'with space & ümläut.txt'), 'x'.repeat(1_000))
  await writeFile(join(course, 'deep', 'deeper', `${'n'.repeat(251)}.txt`), 'the longest name there is')
  const at = ['--keys', 'keys', '--to', 'repository']
  const run = (...args: string[]) => tower(args, { cwd })
  expect((await run('keys', 'init', ...at)).code).toBe(0)
  expect((await run('keys', 'add', 'education', ...at)).code).toBe(0)
  return {
    cwd,
    course,
    run,
    publish: (path = course, ...more: string[]) => run('publish', path, '--dataset', DATASET, ...at, ...more),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  }
}

/** Without what begins with a dot: locks and drafts. */
async function filesIn(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).filter(path => !path.startsWith('.')).toSorted()
}

describe('tower publish', () => {
  it('makes a release, and of the same folder no other one', async () => {
    await using publisher = await openPublisher()
    const first = await publisher.publish(publisher.course, '--title', 'A course')
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toMatch(/^education\/course, release 1: 3 items, /)

    const files = await filesIn(join(publisher.cwd, 'repository'))
    const second = await publisher.publish(publisher.course, '--json')
    expect(JSON.parse(second.stdout)).toMatchObject({
      changed: false,
      revision: 1,
      items: 3,
      itemBytes: 1_025,
      packBytes: 0,
    })
    expect(await filesIn(join(publisher.cwd, 'repository'))).toEqual(files)
  })

  it('makes release 2 of a changed folder, and says what was left out', async () => {
    await using publisher = await openPublisher()
    await publisher.publish()
    await writeFile(join(publisher.course, 'new.txt'), 'new')
    await rm(join(publisher.course, 'empty.txt'))
    await symlink('new.txt', join(publisher.course, 'link.txt'))
    const { code, stdout } = await publisher.publish()
    expect(code).toBe(0)
    expect(stdout).toMatch(/release 2: 3 items/)
    expect(stdout).toMatch(/left out: link\.txt \(a symbolic link/)
  })

  it('says what to do about a wrong folder, and changes nothing', async () => {
    await using publisher = await openPublisher()
    await publisher.publish()
    const files = await filesIn(join(publisher.cwd, 'repository'))
    await mkdir(join(publisher.cwd, 'nothing'))
    const cases = [
      [await publisher.publish('absent'), 1, /^error PUBLISH_FOLDER_UNREADABLE: .*absent/],
      [await publisher.publish('my course/empty.txt'), 1, /^error PUBLISH_FOLDER_UNREADABLE: .*empty\.txt/],
      [await publisher.publish('nothing'), 1, /^error PUBLISH_FOLDER_EMPTY: .*nothing.*\n {2}→ /],
      [
        await publisher.run(
          'publish',
          'my course',
          '--dataset',
          'Course',
          '--keys',
          'keys',
          '--to',
          'repository',
        ),
        1,
        /two segments/,
      ],
      [await publisher.run('publish', 'my course'), 2, /^error USAGE: required option '--dataset <name>'/],
      [await publisher.publish('my course', '--priority', '7'), 2, /0, 1, 2 or 3 is needed/],
      [await publisher.publish('my course', '--pin', 'floppy'), 2, /ipfs, s3, ipfs,s3 or none/],
    ] as const
    for (const [ended, code, message] of cases) {
      expect(ended.stderr).toMatch(message)
      expect(ended).toMatchObject({ code, stdout: '' })
    }
    expect(await filesIn(join(publisher.cwd, 'repository'))).toEqual(files)
  })

  it('says which key is missing, and who may publish', async () => {
    await using publisher = await openPublisher()
    await mkdir(join(publisher.cwd, 'no keys'))
    const publish = (keys: string, dataset = DATASET) =>
      publisher.run(
        'publish',
        'my course',
        '--dataset',
        dataset,
        '--keys',
        keys,
        '--to',
        'repository',
        '--json',
      )
    const errorOf = async (keys: string, dataset?: string) => {
      const { stdout } = await publish(keys, dataset)
      return (JSON.parse(stdout) as { error: unknown }).error
    }
    expect(await errorOf('absent')).toMatchObject({ code: 'KEY_ABSENT' })
    expect(await errorOf('no keys')).toMatchObject({ code: 'KEY_ABSENT' })
    await rm(join(publisher.cwd, 'keys', 'targets.pem'))
    expect(await errorOf('keys', 'health/guide')).toMatchObject({ code: 'KEY_NOT_AUTHORISED' })
    await writeFile(join(publisher.cwd, 'keys', 'broken.pem'), 'not a key')
    expect(await errorOf('keys')).toMatchObject({
      code: 'KEY_INVALID',
      message: expect.stringContaining('broken.pem') as string,
    })
  })

  it('leads to keys init where there is no repository, and names a place of a wrong kind', async () => {
    await using publisher = await openPublisher()
    const to = (place: string) =>
      publisher.run('publish', 'my course', '--dataset', DATASET, '--keys', 'keys', '--to', place)
    expect((await to('elsewhere')).stderr).toMatch(/no repository there.*tower keys init/)
    expect((await to('ftp://host/x')).stderr).toMatch(/^error REQUEST_INVALID: --to ftp:/)
    expect((await to('s3')).stderr).toMatch(/TOWER_S3_URL/)
  })
})
