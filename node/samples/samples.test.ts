import { glob, readFile, stat } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = import.meta.dirname
const BYTES_MAX = 2_000_000
const DATASETS = ['education/light-and-colour', 'health/hands-and-water']

async function filesOf(folder: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  for await (const entry of glob('**', { cwd: folder, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    files.set(path.slice(folder.length + 1), await readFile(path))
  }
  return files
}

/** Relative targets of links, pictures and media in Markdown and HTML. */
function targetsIn(path: string, text: string): string[] {
  const found = path.endsWith('.md')
    ? text.matchAll(/\]\(([^)\s]+)\)/g)
    : text.matchAll(/(?:href|src)="([^"]+)"/g)
  return [...found].map(([, target]) => target!).filter(target => !/^(https?:|#)/.test(target))
}

describe.each(DATASETS)('sample %s', dataset => {
  it('has two releases, whose second one changes and adds something', async () => {
    const first = await filesOf(join(ROOT, dataset, 'r1'))
    const second = await filesOf(join(ROOT, dataset, 'r2'))
    const changed = [...second.keys()].filter(path => first.has(path))
    expect(changed.length).toBeGreaterThan(1)
    expect(second.size).toBeGreaterThan(changed.length)
    for (const path of changed) expect(second.get(path)!.equals(first.get(path)!), path).toBe(false)
  })

  it('links to nothing that is not there, in either release', async () => {
    const first = await filesOf(join(ROOT, dataset, 'r1'))
    const second = new Map([...first, ...(await filesOf(join(ROOT, dataset, 'r2')))])
    for (const files of [first, second]) {
      for (const [path, bytes] of files) {
        if (!/\.(md|html)$/.test(path)) continue
        for (const target of targetsIn(path, bytes.toString())) {
          expect([...files.keys()], `${path} → ${target}`).toContain(normalize(join(dirname(path), target)))
        }
      }
    }
  })

  it('has text, pictures, a table, a page with media, and its licence', async () => {
    const files = [...(await filesOf(join(ROOT, dataset, 'r1'))).keys()].join('\n')
    for (const kind of [
      /\.md$/m,
      /\.svg$/m,
      /\.(png|jpg)$/m,
      /\.csv$/m,
      /^index\.html$/m,
      /\.(wav|webm)$/m,
      /^LICENSE\.md$/m,
    ]) {
      expect(files).toMatch(kind)
    }
  })
})

it('is small', async () => {
  let bytes = 0
  for await (const path of glob('**', { cwd: ROOT })) bytes += (await stat(join(ROOT, path))).size
  expect(bytes).toBeLessThan(BYTES_MAX)
})

it('has tables whose rows have the columns that their first line names', async () => {
  let tables = 0
  for await (const path of glob('**/*.csv', { cwd: ROOT })) {
    const [head, ...rows] = (await readFile(join(ROOT, path), 'utf8')).trimEnd().split('\n')
    const columns = head!.split(',').length
    for (const row of rows) expect(row.split(','), `${path}: ${row}`).toHaveLength(columns)
    tables += 1
  }
  expect(tables).toBe(7)
})

it('has angles that follow from the indices of the other table', async () => {
  const folder = join(ROOT, 'education/light-and-colour/r2/tables')
  const indexRows = (await readFile(join(folder, 'refractive-indices.csv'), 'utf8'))
    .trimEnd()
    .split('\n')
    .slice(1)
  const indexOf = new Map(indexRows.map(row => [row.split(',')[0], Number(row.split(',')[1])]))
  const angles = (await readFile(join(folder, 'refraction-angles.csv'), 'utf8'))
    .trimEnd()
    .split('\n')
    .slice(1)
  expect(angles).toHaveLength(5 * 901)
  for (const row of angles) {
    const [material, air, inside] = row.split(',')
    const expected = Math.asin(Math.sin((Number(air) * Math.PI) / 180) / indexOf.get(material)!)
    expect(Math.abs(Number(inside) - (expected * 180) / Math.PI), row).toBeLessThan(0.0051)
  }
})
