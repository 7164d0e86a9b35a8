/**
 * Finds imports that point the wrong way, and what else breaks the layers:
 *
 *   manifests ← node ← warmers | pinning ← nginx, bench; the roots (node/cli/, main.ts, owner.ts) may
 *   import everything and only roots and benches may import them
 *
 * `manifests` opens no socket, starts no process and reads no clock; it touches files in `publish/`
 * alone. Only roots and benches read the environment. Tests, and what only tests start or import
 * (`testing/`, `testing….ts`, `test-….ts`, `kill-….ts`, `…-process.ts`, `vectors/`), may do as they like.
 */
import { readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'

/** Who may import whom, besides itself. */
const BELOW: Record<string, readonly string[]> = {
  manifests: [],
  node: ['manifests'],
  warmers: ['manifests', 'node'],
  pinning: ['manifests', 'node'],
  nginx: ['manifests', 'node'],
  bench: ['manifests', 'node', 'warmers', 'pinning', 'nginx'],
}
const IMPORT = /(?:^|[\s;}])(?:import|export)\s+(?:[^'"()]*?\sfrom\s*)?'([^']+)'|\bimport\(\s*'([^']+)'/g
const SOCKETS = /^(?:node:(?:net|tls|dgram|https?|http2|child_process|cluster)|undici|ioredis|bullmq|hono)/
const CLOCK = /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(|\bhrtime\b|\bset(?:Timeout|Interval)\(/
const ENVIRONMENT = /\bprocess\.env\b/

export interface Source {
  /** Relative to the repository, with forward slashes. */
  readonly path: string
  readonly text: string
}

/** One line per finding, `path: what is wrong`; empty when all is well. */
export function findWrongImports(sources: readonly Source[]): string[] {
  return sources.filter(({ path }) => !isTest(path)).flatMap(findingsOf)
}

function findingsOf({ path, text }: Source): string[] {
  const findings: string[] = []
  const area = areaOf(path)
  if (!(area in BELOW)) return findings
  const code = withoutComments(text)

  for (const imported of importsOf(code)) {
    const pure = area === 'manifests'
    if (pure && SOCKETS.test(imported))
      findings.push(`${path}: manifests opens no socket or process: ${imported}`)
    if (pure && imported.startsWith('node:fs') && !path.startsWith('manifests/publish/')) {
      findings.push(`${path}: only manifests/publish/ touches files: ${imported}`)
    }
    if (!imported.startsWith('.')) continue

    const target = normalize(join(dirname(path), imported))
    const targetArea = areaOf(target)
    if (isRoot(path)) continue
    if (isTest(target) && area !== 'bench') findings.push(`${path}: imports a test: ${target}`)
    if (isRoot(target) && area !== 'bench') findings.push(`${path}: imports a composition root: ${target}`)
    else if (!isRoot(target) && targetArea !== area && !BELOW[area]?.includes(targetArea)) {
      findings.push(`${path}: ${area} may not import ${targetArea}: ${target}`)
    }
  }

  if (area === 'manifests' && CLOCK.test(code))
    findings.push(`${path}: manifests reads no clock; take the time as a value`)
  if (area !== 'bench' && !isRoot(path) && ENVIRONMENT.test(code)) {
    findings.push(`${path}: only the roots read the environment; take a value from the config`)
  }
  return findings
}

function isTest(path: string): boolean {
  return /\.test\.ts$|(?:^|\/)(?:testing|vectors)\/|(?:^|\/)(?:testing(?:-[\w-]+)?|test-[\w-]+|kill-[\w-]+|[\w-]+-process)\.ts$/.test(
    path,
  )
}

function areaOf(path: string): string {
  return path.split('/')[0] ?? ''
}

function isRoot(path: string): boolean {
  return path.startsWith('node/cli/') || /(?:^|[/-])(?:main|owner)\.ts$/.test(path)
}

function importsOf(code: string): string[] {
  return [...code.matchAll(IMPORT)].map(([, from, dynamic]) => from ?? dynamic ?? '')
}

/** Good enough for our own sources: `//` after a colon (a URL) is not a comment. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[^:'"`\\])\/\/.*$/gm, '$1')
}

export async function readSources(root: string, paths: readonly string[]): Promise<Source[]> {
  return Promise.all(paths.map(async path => ({ path, text: await readFile(join(root, path), 'utf8') })))
}
