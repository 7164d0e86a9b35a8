/**
 * A thread of its own that copies a SQLite file while it is in use: cleaning up the copy would hold
 * up an event loop for as long as it takes. Run by `snapshot.ts` with `{ from, to }`.
 */
import { backup, DatabaseSync } from 'node:sqlite'
import { workerData } from 'node:worker_threads'

const { from, to } = workerData as { readonly from: string; readonly to: string }
const PAGES_AT_ONCE = 200

const original = new DatabaseSync(from, { readOnly: true })
try {
  await backup(original, to, { rate: PAGES_AT_ONCE })
} finally {
  original.close()
}
if (from.endsWith('node.db')) forgetContent(to)

/** An empty disk has none of it; what is known of it stays. */
function forgetContent(path: string): void {
  const copy = new DatabaseSync(path)
  try {
    copy.exec('DELETE FROM small_blocks; DELETE FROM damage')
    copy.exec('UPDATE extents SET place = 0, small = 0, damaged = 0; VACUUM')
  } finally {
    copy.close()
  }
}
