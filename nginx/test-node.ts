/**
 * A node for tests that kill it: one small item, on the listening socket that it is handed as descriptor 3.
 */
import { createNodeServer } from '../node/http/server.ts'
import { TestLibrary } from '../node/http/test-library.ts'

const library = new TestLibrary()
library.add('small.txt', Buffer.from('0123456789'))
await createNodeServer({ library }).listen({ fd: 3 })
console.log('READY')
