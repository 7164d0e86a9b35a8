/** For tests and benches: `node folder-process.ts FOLDER ADDRESS` serves static files; prints its port. */
import { openStaticOrigin } from '../node/static-origin.ts'

const [folder, host] = process.argv.slice(2) as [string, string]
const { url } = await openStaticOrigin(folder, { host })
console.log(new URL(url).port)
