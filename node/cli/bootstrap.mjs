/**
 * What `npm start` and `npm test` run first, on whatever Node the machine has (20 or newer): it makes
 * sure that the locked packages, the pinned runtime and the servers we need are here, then hands over.
 *
 *   bootstrap.mjs up | test | test-long | servers | check | <any command of tower> [arguments]
 *
 * Plain JavaScript, no dependencies: nothing is installed yet when it starts. It says what it
 * installs before it does, and exactly what to type where it may not. When everything is here it
 * does no network and costs about 50 ms.
 */
import { spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmdirSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const BIN = join(ROOT, 'node_modules', '.bin')
/** Where Debian puts nginx; not on everybody's PATH. */
const SYSTEM_BIN = '/usr/sbin'
const OLDEST_RUNTIME = 24
/** Debian's packages by the program we look for. */
const PACKAGE_OF = { 'redis-server': 'redis-server', nginx: 'nginx-light', chromium: 'chromium' }
const EXIT_FAILED = 1

const VITEST = ['node_modules/vitest/vitest.mjs', 'run']
/** What a command runs, and the programs without which it cannot (`needs`) or can (`wants`). */
const COMMANDS = {
  up: { run: ['node/cli/tower', 'up'], needs: [], wants: ['redis-server'] },
  test: { run: VITEST, needs: ['redis-server', 'nginx'], wants: ['chromium'] },
  'test-long': { run: [...VITEST, '--mode', 'long'], needs: ['redis-server', 'nginx'], wants: ['chromium'] },
  servers: { run: ['.ci/install-servers.ts'], needs: [], wants: [] },
  check: { run: ['.ci/check.ts'], needs: [], wants: [] },
}

const [command = '--help', ...args] = process.argv.slice(2)
const { run, needs, wants } = Object.hasOwn(COMMANDS, command)
  ? COMMANDS[command]
  : { run: ['node/cli/tower', command], needs: [], wants: [] }

installPackages()
const runtime = findRuntime()
installPrograms([...needs, ...(process.env.REDIS_URL ? [] : wants)], needs)
handOver(runtime, [...run, ...args])

/** `npm ci`, unless what is installed is what the lockfile says. */
function installPackages() {
  if (packagesMatch()) return
  underLock(() => {
    if (packagesMatch()) return // another bootstrap was faster
    say('installing the locked packages into node_modules (npm ci, once; about 560 MB on disk)')
    const { status, error } = spawnSync(
      'npm',
      ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
      {
        cwd: ROOT,
        stdio: ['ignore', 2, 2],
      },
    )
    if (status === 0) return
    stop(
      EXIT_FAILED,
      `npm ci did not finish${error ? ` (${error.message})` : ''}`,
      'this first run needs a network or a filled npm cache; run it again when there is one',
    )
  })
}

/**
 * npm writes `node_modules/.package-lock.json` last of all, so it is the stamp of a whole install.
 * Only packages for other platforms may be missing from it.
 */
function packagesMatch() {
  try {
    const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages
    const here = JSON.parse(readFileSync(join(ROOT, 'node_modules', '.package-lock.json'), 'utf8')).packages
    return Object.entries(wanted).every(
      ([path, { version, integrity, optional }]) =>
        path === '' ||
        (here[path] ? here[path].version === version && here[path].integrity === integrity : optional),
    )
  } catch {
    return false
  }
}

/** The pinned runtime; where the platform has none, this Node or the machine's when new enough. */
function findRuntime() {
  const pinned = join(BIN, 'node')
  if (works(pinned)) return pinned
  if (Number(process.versions.node.split('.')[0]) >= OLDEST_RUNTIME) return process.execPath
  stop(
    EXIT_FAILED,
    `there is no pinned runtime for ${process.platform}-${process.arch}, and this Node is ${process.version}`,
    `install Node ${OLDEST_RUNTIME} or newer and run this again with it`,
  )
}

/** Installs what is missing with apt-get where we may; `needs` that stay missing end the run. */
function installPrograms(programs, needs) {
  const missing = programs.filter(program => !findProgram(program))
  if (missing.length === 0) return
  const packages = missing.map(program => PACKAGE_OF[program]).join(' ')
  const typed = `apt-get install --no-install-recommends ${packages}`
  if (process.getuid?.() === 0 && findProgram('apt-get')) {
    say(`installing ${packages} (${typed})`)
    if (!aptInstall(packages.split(' '))) {
      say('that failed: refreshing the package lists first (apt-get update)')
      apt(['update', '-qq'])
      aptInstall(packages.split(' '))
    }
    switchOffServices()
  }
  const still = missing.filter(program => !findProgram(program))
  if (still.length === 0) return
  const lacking = still.filter(program => needs.includes(program))
  if (lacking.length > 0) {
    stop(EXIT_FAILED, `${lacking.join(' and ')} not installed`, `type: sudo ${typed}`)
  }
  say(`going on without ${still.join(', ')}: jobs run inside the node and are derived again after a restart`)
  say(`for the queue in Redis type: sudo ${typed}`)
}

function aptInstall(packages) {
  return apt(['install', '-y', '-qq', '--no-install-recommends', ...packages])
}

function apt(args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  return spawnSync('apt-get', args, { stdio: ['ignore', 2, 2], env }).status === 0
}

/** We start our own servers, on our own sockets: what apt-get started beside them is only in the way. */
function switchOffServices() {
  if (!existsSync('/run/systemd/system')) return
  spawnSync('systemctl', ['disable', '--now', 'redis-server', 'nginx'], { stdio: 'ignore' })
}

function findProgram(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), SYSTEM_BIN]
  return folders.some(folder => folder !== '' && works(join(folder, name)))
}

function works(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Two first runs at once would delete each other's packages; a lock older than ten minutes is a dead one's. */
function underLock(work) {
  const lock = join(ROOT, '.bootstrap.lock')
  for (let told = false; ; ) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (error.code !== 'EEXIST')
        stop(EXIT_FAILED, `cannot write to ${ROOT} (${error.code})`, 'use a folder that is yours')
      const ageMs = Date.now() - (statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
      if (ageMs > 10 * 60_000) rmdirSync(lock)
      if (!told) say('waiting for another run that is installing packages')
      told = true
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 250)
    }
  }
  const release = () => existsSync(lock) && rmdirSync(lock)
  process.once('exit', release) // `stop` ends the process in mid-work
  work()
  release()
}

/** Runs the rest under `runtime`; signals are passed to it, and its end is ours. */
function handOver(runtime, [script, ...rest]) {
  const file = join(ROOT, script)
  const isTower = script === 'node/cli/tower' // it knows with what settings it runs best
  const env = {
    ...process.env,
    TOWERLIGHT_RUNTIME: runtime,
    PATH: [BIN, process.env.PATH, SYSTEM_BIN].filter(Boolean).join(delimiter),
  }
  const [program, ...full] = isTower ? [file, ...rest] : [runtime, file, ...rest]
  const child = spawn(program, full, { stdio: 'inherit', cwd: isTower ? process.cwd() : ROOT, env })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', error =>
    stop(EXIT_FAILED, `cannot start ${runtime}: ${error.message}`, 'delete node_modules and run this again'),
  )
  child.on('exit', (code, signal) => {
    if (signal) {
      process.removeAllListeners(signal)
      process.kill(process.pid, signal)
    } else {
      process.exitCode = code
    }
  })
}

function say(text) {
  console.error(`towerlight: ${text}`)
}

function stop(code, problem, hint) {
  say(problem)
  say(`→ ${hint}`)
  process.exit(code)
}
