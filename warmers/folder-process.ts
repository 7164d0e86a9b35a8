/** For tests only: `node folder-process.ts FOLDER ADDRESS` serves static files; prints its port. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { folderFiles, staticFiles } from './testing.ts'

const [folder, address] = process.argv.slice(2) as [string, string]
const handle = staticFiles(folderFiles(folder))
const server = createServer((request, response) => void handle(request, response))
server.keepAliveTimeout = 120_000
server.listen(0, address, () => console.log((server.address() as AddressInfo).port))
