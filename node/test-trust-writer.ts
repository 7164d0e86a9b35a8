/**
 * For tests: a process that accepts one signed release after the other into a trust store, and says
 * `<sequence> <timestamp version>` once each is durable. It is stopped, killed, and cut off.
 */
import { TestRepository } from '../manifests/tuf/testing.ts'
import { parseTimestamp } from '../manifests/tuf/metadata.ts'
import { initialState } from '../manifests/tuf/accepted-state.ts'
import { EMPTY_TRUST } from './trust-record.ts'
import { openTrustStore } from './trust-store.ts'

const [folder = ''] = process.argv.slice(2)
const repository = await TestRepository.open()
const store = await openTrustStore(folder)
await store.update(() => ({ ...EMPTY_TRUST, accepted: initialState(repository.root) }))
for (let release = 0; ; release++) {
  await repository.publish('health/guide/manifest.json', `release ${release}`)
  if (release % 7 === 3) await repository.rotate('root')
  if (release % 11 === 5) await repository.rotate('snapshot')
  await repository.accept(store.record.accepted, {
    onAdvance: async accepted => {
      await store.update(record => ({ ...record, accepted }))
      const version = accepted.timestamp ? parseTimestamp(accepted.timestamp).version : 0
      process.stdout.write(`${store.sequence} ${version}\n`)
    },
  })
}
