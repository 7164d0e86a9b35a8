/**
 * The node under load, its HTTP part over items in files, in a process of its own.
 * `node bench/read/serve-node.ts <folder>`: serves each file there, verified chunk by chunk.
 */
import { mkdtempSync, readFileSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createNodeServer } from '../../node/http/server.ts'
import { TestLibrary } from '../../node/http/test-library.ts'

const folder = process.argv[2] as string
const library = new TestLibrary(mkdtempSync(join(tmpdir(), 'bench-read-')))
for (const name of readdirSync(folder)) {
  library.add(name, readFileSync(join(folder, name)), { dataset: 'bench/read' })
}
const node = createNodeServer({ library })
const given = process.env.BENCH_FD // a socket that listens already
const { port } = await node.listen(given ? { fd: Number(given) } : { port: 0 })
console.log(`PORT ${port}`)
