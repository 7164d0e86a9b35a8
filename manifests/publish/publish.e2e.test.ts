import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { parseManifest } from '../manifest.ts'
import { createRepository } from '../tuf/ceremony.ts'
import { releaseSigner } from '../tuf/release-signer.ts'
import { generateKeyPem, parseSigningKey } from '../tuf/signing-key.ts'
import { stream } from '../vectors/vectors.ts'
import { folderStorage } from './folder-storage.ts'
import { publishRelease } from './publish-release.ts'
import { readRelease, treeOf } from './test-folders.ts'

/** Many of them: `KILLS=500 vitest run manifests/publish/publish.e2e.test.ts`. */
const KILLS = Number(process.env.KILLS ?? 4)
const STAGES = ['hashing', 'packing', 'deltas', 'signing'] as const
const DATASET = 'education/test'
const SOURCE = stream(4_000_000)

async function openPublisher() {
  const root = await mkdtemp(join(tmpdir(), 'tower-kill-'))
  const [folder, repo, keyFile] = ['folder', 'repo', 'key.pem'].map(name => join(root, name)) as [
    string,
    string,
    string,
  ]
  const pem = generateKeyPem()
  await mkdir(folder)
  await writeFile(keyFile, pem)
  const key = parseSigningKey(pem)
  const storage = folderStorage(repo)
  const role = { keys: [key], threshold: 1 }
  await createRepository(
    { storage, keys: [key], now: new Date() },
    { root: role, targets: role, snapshot: role, timestamp: role },
  )
  const signer = releaseSigner({ keys: [key] })
  return {
    ...{ folder, repo, storage, signer, arguments: [folder, repo, keyFile] },
    async current() {
      const target = await signer.current(`${DATASET}/manifest.json`, storage)
      return (
        target &&
        parseManifest(await readFile(join(repo, `targets/${DATASET}/${target.sha256}.manifest.json`)))
      )
    },
    async [Symbol.asyncDispose]() {
      await rm(root, { recursive: true, force: true })
    },
  }
}

/** A process that is ready to publish and waits. */
async function startProcess(parameters: readonly string[]) {
  const child: ChildProcess = spawn(
    process.execPath,
    [join(import.meta.dirname, 'publish-process.ts'), ...parameters],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  )
  const exited = once(child, 'exit')
  const lines = createInterface(child.stdout!)[Symbol.asyncIterator]()
  expect((await lines.next()).value).toBe('ready')
  return {
    go: () => void child.stdin!.write('go\n'),
    /** Until it says so, or has said its last word. */
    async reaches(stage: string) {
      for (let said = await lines.next(); !said.done && said.value !== stage && !said.value.startsWith('{'); )
        said = await lines.next()
    },
    async answer() {
      let said = await lines.next()
      while (!said.done && !said.value.startsWith('{')) said = await lines.next()
      return JSON.parse(said.value as string) as Record<string, unknown>
    },
    kill: () => void child.kill('SIGKILL'),
    exited,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

/** A release's folder: two large files that change a little each time, and one that is new. */
async function writeFolder(folder: string, release: number): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  for (const [name, from] of [
    ['a.bin', 0],
    ['b.bin', 2_000_000],
  ] as const) {
    const bytes = Buffer.from(SOURCE.subarray(from, from + 2_000_000))
    bytes.write(`release ${release}`, (release * 700_001) % 1_900_000)
    files.set(name, bytes)
  }
  files.set('page.html', Buffer.from(`<h1>${release}</h1>`))
  for (const [name, bytes] of files) await writeFile(join(folder, name), bytes)
  return files
}

describe('a publisher', () => {
  it(`killed ${KILLS} times, in every stage, leaves the release before, and a re-run finishes`, {
    timeout: 60_000 + KILLS * 10_000,
  }, async () => {
    await using publisher = await openPublisher()
    const { folder, storage } = publisher
    let before = await writeFolder(folder, 0)
    {
      await using first = await startProcess(publisher.arguments)
      first.go()
      expect(await first.answer()).toMatchObject({ revision: 1, changed: true })
    }
    const outcomes = { before: 0, after: 0 }
    for (let kill = 1; kill <= KILLS; kill++) {
      const next = await writeFolder(folder, kill)
      {
        await using victim = await startProcess(publisher.arguments)
        victim.go()
        await victim.reaches(STAGES[kill % STAGES.length]!)
        await setTimeout(Math.random() * 40)
        victim.kill()
      }
      const found = await readRelease(storage, (await publisher.current())!)
      const isNew = found.get('page.html')!.equals(next.get('page.html')!)
      expect(found).toEqual(isNew ? next : before)
      outcomes[isNew ? 'after' : 'before'] += 1

      await using again = await startProcess(publisher.arguments)
      again.go()
      expect(await again.answer()).toMatchObject({ revision: kill + 1, changed: !isNew })
      expect(await readRelease(storage, (await publisher.current())!)).toEqual(next)
      before = next
    }
    expect(outcomes.before, 'kills that came in time').toBeGreaterThan(0)
    const left = Object.keys(treeOf(publisher.repo)).filter(path => /^\.(?!publish\.lock$)/.test(path))
    expect(left).toEqual([])
  })

  it('is the only one: another process that publishes meanwhile gets PUBLISH_CONFLICT', {
    timeout: 60_000,
  }, async () => {
    await using publisher = await openPublisher()
    await writeFolder(publisher.folder, 0)
    await using one = await startProcess(publisher.arguments)
    await using two = await startProcess(publisher.arguments)
    one.go()
    two.go()
    const answers = await Promise.all([one.answer(), two.answer()])
    const conflicts = answers.filter(answer => answer.code === 'PUBLISH_CONFLICT')
    // both succeed when the first is done before the second begins: then that one changes nothing
    if (conflicts.length === 0)
      expect(answers.map(answer => String(answer.changed)).toSorted()).toEqual(['false', 'true'])
    expect(answers).toContainEqual(expect.objectContaining({ revision: 1 }))
    expect((await publisher.current())?.revision).toBe(1)
  })

  it('that holds the repository and dies lets go of it', async () => {
    await using publisher = await openPublisher()
    const { folder, storage, signer } = publisher
    await writeFolder(folder, 0)
    await using victim = await startProcess(publisher.arguments)
    victim.go()
    await victim.reaches('hashing')
    await expect(storage.lock()).rejects.toMatchObject({ code: 'PUBLISH_CONFLICT' })
    victim.kill()
    await victim.exited
    expect(
      await publishRelease({
        folder,
        dataset: DATASET,
        repository: storage,
        signer,
        now: new Date(),
        options: { level: 3 },
      }),
    ).toMatchObject({
      changed: true,
      revision: 1,
    })
  })
})
