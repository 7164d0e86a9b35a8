/**
 * One publisher as a process of its own, for tests that kill it: `publish-process.ts FOLDER REPO KEY`.
 * Says `ready`, waits for a line, publishes, says at which stage it is, and what came of it in one
 * line of JSON.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { isEdgeError } from '../errors.ts'
import { releaseSigner } from '../tuf/release-signer.ts'
import { parseSigningKey } from '../tuf/signing-key.ts'
import { folderStorage } from './folder-storage.ts'
import { publishRelease, type PublishProgress } from './publish-release.ts'

const [folder, repo, key] = process.argv.slice(2) as [string, string, string]
const signer = releaseSigner({ keys: [parseSigningKey(readFileSync(key, 'utf8'))] })
console.log('ready')
using input = createInterface(process.stdin)
await input.question('')
let stage = ''
const onProgress = (progress: PublishProgress) => {
  if (progress.stage !== stage) console.log((stage = progress.stage))
}
try {
  const { revision, changed, reusedBytes } = await publishRelease({
    ...{ folder, dataset: 'education/test', repository: folderStorage(repo), signer, now: new Date() },
    options: { level: 3, date: new Date(0), onProgress },
  })
  console.log(JSON.stringify({ revision, changed, reusedBytes }))
} catch (error) {
  if (!isEdgeError(error)) throw error
  console.log(JSON.stringify({ code: error.code }))
}
