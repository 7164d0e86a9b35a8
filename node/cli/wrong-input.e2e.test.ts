/**
 * What is wrong from outside, through the real command and real HTTP: each ends in the documented
 * exit code or status, and in words that say what to do. What is merely awkward has to work.
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { lockStore } from '../store/lock.ts'
import { openWorld, type Serving, type World } from './test-world.ts'
import { TOWER, tower } from './testing.ts'

vi.setConfig({ testTimeout: 90_000 }) // a dozen processes in some

const DATASET = 'education/awkward'
const ITEMS: Readonly<Record<string, Buffer>> = {
  'empty.bin': Buffer.alloc(0),
  'with space & 100% #1?.txt': Buffer.from('spaces\n'),
  ' leading and trailing ': Buffer.from('blank\n'),
  'größe-😀-عربى-中文.txt': Buffer.from('unicode\n'),
  'e\u0301 is not \u00e9.txt': Buffer.from('decomposed\n'),
  '\u00e9 is not e\u0301.txt': Buffer.from('composed\n'),
  '%2e%2e': Buffer.from('a name that looks like an escape\n'),
  '"quotes" \'and\' <tags>;|$(x).txt': Buffer.from('shell\n'),
  '...': Buffer.from('three dots\n'),
  [`${'n'.repeat(251)}.txt`]: Buffer.from('255 bytes\n'),
  [`${'ü'.repeat(127)}n`]: Buffer.from('255 bytes of two each\n'),
  [`deep/${'d'.repeat(255)}/${'e'.repeat(255)}/item.txt`]: Buffer.from('deep\n'),
  'big.bin': Buffer.alloc(700_000, 'big enough for several chunks, '),
}

let world: World
let node: Serving
const stack = new AsyncDisposableStack()

beforeAll(async () => {
  world = stack.use(await openWorld('education'))
  for (const [path, bytes] of Object.entries(ITEMS)) {
    await mkdir(join(world.folder, 'items', path, '..'), { recursive: true })
    await writeFile(join(world.folder, 'items', path), bytes)
  }
  await world.publish(join(world.folder, 'items'), DATASET)
  node = stack.use(await world.serve())
  await world.ask(['fill', '--once'])
}, 60_000)
afterAll(() => stack.disposeAsync())

const urlOf = (path: string) => `data/${DATASET}/${path.split('/').map(encodeURIComponent).join('/')}`

/** The target as it stands, which no client would send. @returns the whole answer. */
async function askRaw(target: string): Promise<string> {
  const socket = connect(Number(new URL(node.url).port), '127.0.0.1')
  socket.end(`GET ${target} HTTP/1.1\r\nHost: tower\r\nConnection: close\r\n\r\n`, 'latin1')
  return (await buffer(socket)).toString('latin1')
}

interface ProblemBody {
  readonly code: string
  readonly status: number
  readonly detail: string
}

describe('HTTP', () => {
  it.each(Object.keys(ITEMS))('serves %j as it was', async path => {
    const response = await node.get(urlOf(path))
    expect(response.status).toBe(200)
    expect(Buffer.from(await response.arrayBuffer()).equals(ITEMS[path]!)).toBe(true)
  })

  it.each([
    ['data/education/nothing/a.txt', 404, 'DATASET_UNKNOWN'],
    ['data/nobody/nothing/', 404, 'DATASET_UNKNOWN'],
    [`data/${DATASET}/absent.txt`, 404, 'ITEM_UNKNOWN'],
    [`data/${DATASET}/empty.bin/x`, 404, 'ITEM_UNKNOWN'],
    [`data/${DATASET}/%252e`, 404, 'ITEM_UNKNOWN'],
    [`sha256/${'0'.repeat(64)}`, 404, 'ITEM_UNKNOWN'],
    ['repo/packs/none.pack', 404, 'NOT_FOUND'],
    ['nowhere', 404, 'NOT_FOUND'],
  ])('%s: %i %s', async (path, status, code) => {
    const response = await node.get(path)
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    const body = (await response.json()) as ProblemBody
    expect([response.status, body]).toMatchObject([status, { status, code, detail: expect.any(String) }])
  })

  it.each([
    ['bytes=700000-', 'big.bin', 700_000],
    ['bytes=9999999999-', 'big.bin', 700_000],
    ['bytes=-0', 'big.bin', 700_000],
    ['bytes=0-', 'empty.bin', 0],
  ])('range %s of %s is outside: 416 with the size', async (range, path, sizeBytes) => {
    const response = await node.get(urlOf(path), { headers: { range } })
    expect(response.status).toBe(416)
    expect(response.headers.get('content-range')).toBe(`bytes */${sizeBytes}`)
    expect(await response.json()).toMatchObject({ code: 'RANGE_OUTSIDE_ITEM' })
  })

  it.each(['bytes=5-4', 'bytes=a-b', 'lines=0-1', 'bytes', 'bytes=--1'])(
    'range %s is none: the whole item (RFC 9110 §14.2)',
    async range => {
      const response = await node.get(urlOf('big.bin'), { headers: { range } })
      expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, 700_000])
    },
  )

  it('answers no trick with a path', async () => {
    const inDataset = [
      ...['..', '../', '../../etc/passwd', '../../../../../../../../etc/passwd', '.', './', './empty.bin'],
      ...[
        '%2e%2e',
        '%2e%2e/',
        '%2E%2E/x',
        '.%2e/x',
        '%2e./x',
        '%2e',
        '%2e/empty.bin',
        'deep/..',
        'deep/../x',
      ],
      ...['empty.bin/..', 'empty.bin/../empty.bin', 'deep/./x', '/empty.bin', '//', 'deep//', 'deep//x'],
      ...['%2fetc%2fpasswd', 'deep%2fx', 'deep%2Fx', '..%2f..%2fnode.db', '%2e%2e%2f', '..%5c..%5cx', '%5c'],
      ...[
        'a\\b',
        '..\\..\\x',
        'C:\\x',
        '%00',
        'empty.bin%00',
        'empty.bin%00.png',
        '%0a',
        '%0d%0aSet-Cookie:x',
      ],
      ...['%09', '%1b', '%7f', '%', '%2', '%zz', 'a%', 'a%g0', '%u002e%u002e/', '%c0%ae%c0%ae/x', '%c0%af'],
      ...[
        '%e0%80%ae',
        '%ff',
        '%80',
        '%ed%a0%80',
        '%f8%88%80%80%80',
        '%fc',
        '\xff',
        'n'.repeat(256),
        'x/'.repeat(5000),
      ],
    ].map(path => `/data/${DATASET}/${path}`)
    const elsewhere = [
      ...['/data/../../etc/passwd', '/data/%2e%2e/%2e%2e/etc/passwd', '/data//x', '/data/Education/x/y'],
      ...['/data/education/.hidden/x', '/data/education/a%20b/x', '/data/education/x%2fy/z', '/data/./x/y'],
      ...[
        '/repo/../node.db',
        '/repo/metadata/../../node.db',
        '/repo/%2e%2e/trust-v1/a',
        '/repo/..%2fnode.db',
      ],
      ...['/repo/a%00', '/repo//etc/passwd', '/sha256/..', '/sha256/%2e%2e', '/sha256/xyz'],
      ...[`/sha256/${'A'.repeat(64)}`, `/sha256/${'0'.repeat(64)}/../x`, '/ipfs/../node.db', '/ipfs/xyz'],
    ]
    const tricks = [...inDataset, ...elsewhere]
    expect(tricks.length).toBeGreaterThanOrEqual(50)
    const wrong: string[] = []
    for (const trick of tricks) {
      const answer = await askRaw(trick)
      if (!answer.startsWith('HTTP/1.1 400 ') || /root:|SQLite/.test(answer))
        wrong.push(`${trick.slice(0, 80)}: ${answer.slice(0, 30)}`)
    }
    expect(wrong).toEqual([])
    expect((await node.get('readyz')).status).toBe(200)
  })
})

interface Failed {
  readonly code: number
  readonly error: string
  /** Of the message and the hint. */
  readonly says: RegExp
}

/** Runs the command for programs; checks the code that it ended with and what it said. */
async function expectFailure(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { code, error, says }: Failed,
  run = world.run,
): Promise<void> {
  const ended = await run([...args, '--json'], env)
  const { error: said } = JSON.parse(ended.stdout || '{}') as {
    error?: { code: string; message: string; hint?: string }
  }
  expect([ended.code, said?.code], ended.stdout + ended.stderr).toEqual([code, error])
  expect(`${said?.message}\n${said?.hint}`).toMatch(says)
}

const publishing = (folder: string, keys = world.keys) => [
  'publish',
  ...[folder, '--dataset', DATASET, '--keys', keys, '--to', world.repository],
]

describe('publishing', () => {
  it('refuses a folder that it cannot read, and one without files', async () => {
    const folder = join(world.folder, 'refused')
    await mkdir(join(folder, 'secret'), { recursive: true })
    await expectFailure(
      publishing(folder),
      {},
      {
        code: 1,
        error: 'PUBLISH_FOLDER_EMPTY',
        says: /refused.*\n.*at least one file/,
      },
    )
    await writeFile(join(folder, 'a.txt'), 'a')
    await expectFailure(
      publishing(join(folder, 'a.txt')),
      {},
      {
        code: 1,
        error: 'PUBLISH_FOLDER_UNREADABLE',
        says: /a\.txt/,
      },
    )
    for (const unreadable of ['secret', 'a.txt']) {
      await using _shut = await shutFor(folder, unreadable)
      await expectFailure(
        publishing(folder),
        {},
        {
          code: 1,
          error: 'PUBLISH_FOLDER_UNREADABLE',
          says: new RegExp(unreadable.replace('.', '\\.')),
        },
        runUnprivileged,
      )
    }
  })

  it('refuses a key that may not sign this, and says where a missing one is looked for', async () => {
    const [others, none] = [join(world.folder, 'other-keys'), join(world.folder, 'no-keys')]
    await tower(['keys', 'init', '--keys', others, '--to', join(world.folder, 'other-repository')])
    const stranger = join(world.folder, 'stranger')
    await tower(['keys', 'new', 'education', '--keys', stranger])
    for (const name of ['root.json', 'snapshot.pem', 'timestamp.pem'])
      await cp(join(world.keys, name), join(stranger, name))
    const folder = join(world.folder, 'items')
    await writeFile(join(folder, 'new.txt'), 'new')
    const before = await readdir(join(world.repository, 'metadata'))
    const refused = (keys: string, error: string, says: RegExp) =>
      expectFailure(publishing(folder, keys), {}, { code: 1, error, says })
    await refused(others, 'TRUST_SIGNATURE', /root\.json beside the keys/)
    await refused(stranger, 'KEY_NOT_AUTHORISED', /tower keys add/)
    await refused(none, 'KEY_ABSENT', /no-keys.*\n.*tower keys/)
    expect(await readdir(join(world.repository, 'metadata'))).toEqual(before)
  })
})

describe('the node', () => {
  const ownData = (name: string) => ({ TOWER_DATA: join(world.folder, name) })

  it('refuses a data folder that is read-only, or no folder', async () => {
    await writeFile(join(world.folder, 'a-file'), '')
    for (const args of [['serve', '--port', '0'], ['fill', '--once'], ['status']])
      await expectFailure(args, ownData('a-file'), {
        code: 1,
        error: 'STORE_READ_ONLY',
        says: /a-file.*\n.*TOWER_DATA/,
      })
    if (!canMountReadOnly()) {
      console.warn('NOT RUN: a data folder mounted read-only (mount namespaces are not allowed here)')
      return
    }
    await mkdir(join(world.folder, 'read-only'))
    for (const args of [
      ['serve', '--port', '0'],
      ['fill', '--once'],
    ])
      await expectFailure(
        args,
        ownData('read-only'),
        { code: 1, error: 'STORE_READ_ONLY', says: /read-only.*\n.*TOWER_DATA/ },
        runReadOnly,
      )
  })

  it('refuses a port in use', async () => {
    await using server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const port = String((server.address() as AddressInfo).port)
    const says = new RegExp(`${port}.*\n.*TOWER_PORT`)
    await expectFailure(['serve', '--port', port], ownData('ports'), { code: 1, error: 'PORT_IN_USE', says })
    await expectFailure(
      ['serve', '--port', '0'],
      { ...ownData('ports'), TOWER_ADMIN: port, TOWER_UPSTREAM: '' },
      {
        code: 1,
        error: 'PORT_IN_USE',
        says: /TOWER_ADMIN/,
      },
    )
  })

  it('says that the upstream is down, and serves what it has', async () => {
    await using closed = createServer().listen(0, '127.0.0.1')
    await once(closed, 'listening')
    const { port } = closed.address() as AddressInfo
    await closed[Symbol.asyncDispose]()
    const env = { ...ownData('alone'), TOWER_UPSTREAM: `http://127.0.0.1:${port}/` }
    const down = { code: 3, error: 'UPSTREAM_UNREACHABLE', says: new RegExp(`${port}.*\n.*run it again`) }
    await expectFailure(['fill', '--once'], env, down)
    await expectFailure(['plan'], env, down)
    await using alone = await world.serve(env)
    expect((await alone.get('livez')).status).toBe(200)
    expect((await alone.get(urlOf('big.bin'))).status).toBe(404)
    expect((await alone.stop()).code).toBe(0)
  })

  it('says that there is no upstream, also to a node that knows releases and lacks some of their content', async () => {
    const data = join(world.folder, 'data-of-unfinished')
    await cp(join(world.data, 'trust-v1'), join(data, 'trust-v1'), { recursive: true })
    const env = { TOWER_DATA: data, TOWER_UPSTREAM: '' }
    const none = { code: 3, error: 'UPSTREAM_UNREACHABLE', says: /set TOWER_UPSTREAM/ }
    await expectFailure(['plan'], env, none)
    await expectFailure(['fill', '--once'], env, none)
  })

  it('takes no root that is wrong', async () => {
    const root = (name: string) => ({ TOWER_ROOT: join(world.folder, name), ...ownData(`data-of-${name}`) })
    await writeFile(join(world.folder, 'no-root'), '{"signed":{}}')
    await tower([
      'keys',
      'init',
      '--keys',
      join(world.folder, 'strangers'),
      '--to',
      join(world.folder, 'strange'),
    ])
    await writeFile(
      join(world.folder, 'wrong-root'),
      await readFile(join(world.folder, 'strangers', 'root.json')),
    )
    const fill = ['fill', '--once']
    await expectFailure(fill, root('absent-root'), {
      code: 1,
      error: 'TRUST_ROOT_ABSENT',
      says: /absent-root.*TOWER_ROOT/,
    })
    await expectFailure(fill, root('no-root'), { code: 1, error: 'TRUST_INVALID', says: /TOWER_ROOT/ })
    await expectFailure(fill, root('wrong-root'), { code: 1, error: 'TRUST_SIGNATURE', says: /TOWER_ROOT/ })
    const corrected = { ...root('wrong-root'), TOWER_ROOT: join(world.keys, 'root.json') }
    expect(await world.ask(fill, corrected)).toMatchObject({ complete: true })
  })

  it('is alone on its data folder: a second one is refused within a second', async () => {
    const started = async (...args: string[]) => {
      const sinceMs = performance.now()
      const { code } = await world.run(args)
      return { code, ms: performance.now() - sinceMs }
    }
    const start = await started('serve', '--port', 'none') // what it takes to load
    const second = await started('serve', '--port', '0')
    expect([start.code, second.code]).toEqual([2, 3])
    expect(second.ms - start.ms).toBeLessThan(1_000 + start.ms)
    await expectFailure(
      ['serve', '--port', '0'],
      {},
      {
        code: 3,
        error: 'STORE_LOCKED',
        says: new RegExp(`process ${node.pid}.*\n.*TOWER_DATA`),
      },
    )
    expect((await node.get('readyz')).status).toBe(200)
  })

  it('leaves a store alone that somebody holds and does not answer for', async () => {
    const data = join(world.folder, 'held')
    await mkdir(data)
    using _held = lockStore(data)
    for (const args of [
      ['status'],
      ['plan'],
      ['fill', '--once'],
      ['verify'],
      ['explain', `${DATASET}/big.bin`],
    ])
      await expectFailure(
        args,
        { TOWER_DATA: data },
        { code: 3, error: 'STORE_LOCKED', says: /held.*\n.*TOWER_DATA/ },
      )
  })
})

/** Root reads everything: so the command runs as somebody else, who owns keys and repository for that long. */
async function shutFor(folder: string, name: string): Promise<AsyncDisposable> {
  const path = join(folder, name)
  const places = [world.keys, world.repository]
  await chmod(world.folder, 0o755)
  if (isRoot()) for (const place of places) execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, place])
  await chmod(path, 0)
  return {
    async [Symbol.asyncDispose]() {
      await chmod(path, 0o755)
      if (isRoot()) for (const place of places) execFileSync('chown', ['-R', '0:0', place])
    },
  }
}

const NOBODY = '65534'
const isRoot = () => process.getuid?.() === 0

const runUnprivileged: World['run'] = (args, env = {}) =>
  isRoot()
    ? tower(['--reuid', NOBODY, '--regid', NOBODY, '--clear-groups', TOWER, ...args], {
        command: 'setpriv',
        env,
      })
    : world.run(args, env)

/** In a mount namespace of its own, where the data folder is mounted read-only: stops even root. */
const runReadOnly: World['run'] = (args, env = {}) =>
  tower(['-m', 'sh', '-c', `${MOUNT} && exec "$@"`, 'sh', TOWER, ...args], {
    command: 'unshare',
    env: { ...world.env, ...env },
  })
const MOUNT = 'mount --bind "$TOWER_DATA" "$TOWER_DATA" && mount -o remount,ro,bind "$TOWER_DATA"'

function canMountReadOnly(): boolean {
  try {
    const env = { ...process.env, TOWER_DATA: world.folder }
    execFileSync('unshare', ['-m', 'sh', '-c', MOUNT], { env, stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
