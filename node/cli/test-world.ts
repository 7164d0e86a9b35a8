/**
 * For tests of the whole system: a publisher with keys and a repository folder, and a tower with a
 * data folder that fills from it; every step is the real command in a process of its own.
 */
import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Ended, openTower, type RunningTower, tower } from './testing.ts'

export type Serving = RunningTower<{ readonly event: string; readonly url?: string }>

export interface World extends AsyncDisposable {
  readonly folder: string
  readonly keys: string
  readonly repository: string
  /** The tower's data folder. */
  readonly data: string
  /** Settings of the tower: data folder, root, upstream (the repository as `file:`). */
  readonly env: Readonly<Record<string, string>>
  /** Any command, whatever it answers, in the world's folder. */
  run(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Ended>
  /** A command that has to work; its answer in JSON. */
  ask(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<unknown>
  /** `tower keys …` on the repository. */
  keysDo(...args: readonly string[]): Promise<unknown>
  publish(folder: string, dataset: string): Promise<unknown>
  serve(env?: Readonly<Record<string, string>>): Promise<Serving>
}

/** Looks for news only when told to: a test decides when. */
const NEVER_SECONDS = '1000000'

export async function openWorld(...publishers: readonly string[]): Promise<World> {
  await using stack = new AsyncDisposableStack()
  const { path: folder } = stack.use(await mkdtempDisposable(join(tmpdir(), 'towerlight-world-')))
  const [keys, repository, data] = [join(folder, 'keys'), join(folder, 'repository'), join(folder, 'tower')]
  const env = {
    TOWER_DATA: data,
    TOWER_ROOT: join(keys, 'root.json'),
    TOWER_UPSTREAM: pathToFileURL(`${repository}/`).href,
    TOWER_REFRESH_SECONDS: NEVER_SECONDS,
    TOWER_LOG_LEVEL: 'error',
  }
  const place = ['--keys', keys, '--to', repository]
  const run: World['run'] = (args, more = {}) => tower(args, { cwd: folder, env: { ...env, ...more } })
  const ask: World['ask'] = async (args, more) => {
    const { code, stdout, stderr } = await run([...args, '--json'], more)
    if (code !== 0) throw new Error(`tower ${args.join(' ')} ended with ${code}: ${stdout}${stderr}`)
    return JSON.parse(stdout)
  }
  const keysDo: World['keysDo'] = (...args) => ask(['keys', ...args, ...place])
  await keysDo('init')
  for (const name of publishers) await keysDo('add', name)
  const kept = stack.move()
  return {
    folder,
    keys,
    repository,
    data,
    env,
    run,
    ask,
    keysDo,
    publish: (from, dataset) => ask(['publish', from, '--dataset', dataset, ...place]),
    serve: (more = {}) => openTower(['serve', '--port', '0'], { cwd: folder, env: { ...env, ...more } }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
