/**
 * Hands Kubo blocks as one CAR stream (`dag import`), by undici and not by kubo-rpc-client, whose
 * multipart stream goes through the platform's fetch: every block becomes a turn of web streams.
 */
import { Readable } from 'node:stream'
import { request } from 'undici'
import { type Cid, parseCid } from '../manifests/cid.ts'
import type { Abortable } from '../manifests/extent.ts'
import type { PinOutcome } from './pin-target.ts'

const BOUNDARY = 'towerlight-car'
const HEAD = Buffer.from(
  `--${BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="batch.car"\r\nContent-Type: application/vnd.ipld.car\r\n\r\n`,
)
const TAIL = Buffer.from(`\r\n--${BOUNDARY}--\r\n`)
/** Small blocks are gathered into pieces of this size: a write to the socket each costs more than a copy. */
const PIECE_BYTES = 256 * 1024
/** From here on a copy costs more. */
const LARGE_BYTES = 32 * 1024

/**
 * @returns what Kubo says of each root, as it has pinned it or failed to.
 * @throws whatever the archive throws, or the connection.
 */
export async function importCar(
  apiUrl: string,
  archive: AsyncIterable<Uint8Array>,
  { signal }: Abortable,
): Promise<PinOutcome[]> {
  const url = new URL('/api/v0/dag/import?pin-roots=true&silent=false&fast-provide-root=false', apiUrl)
  const { statusCode, body } = await request(url, {
    method: 'POST',
    headers: { 'Content-Type': `multipart/form-data; boundary=${BOUNDARY}` },
    body: Readable.from(inLargePieces(archive), { objectMode: false }),
    signal,
    headersTimeout: 0, // the answer begins when all blocks are in: the signal bounds it
    bodyTimeout: 0,
  })
  const text = await body.text()
  if (statusCode !== 200) throw new Error(`dag import answered ${statusCode}: ${text.slice(0, 300)}`)
  return text.split('\n').flatMap(outcomeIn)
}

interface ImportLine {
  readonly Root?: { readonly Cid: { readonly '/': string }; readonly PinErrorMsg?: string }
  readonly Message?: string
}

function outcomeIn(line: string): PinOutcome[] {
  if (line.trim() === '') return []
  const { Root: pinned, Message: failure } = JSON.parse(line) as ImportLine
  if (failure !== undefined) throw new Error(failure)
  if (!pinned) return []
  const root: Cid = parseCid(pinned.Cid['/'])
  return [pinned.PinErrorMsg ? { root, error: new Error(pinned.PinErrorMsg) } : { root }]
}

/** Large blocks go as they are; what lies between them is gathered. */
async function* inLargePieces(archive: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let gathered: Uint8Array[] = [HEAD]
  let sizeBytes = HEAD.length
  for await (const piece of archive) {
    const isLarge = piece.length >= LARGE_BYTES
    if (!isLarge) {
      gathered.push(piece)
      sizeBytes += piece.length
    }
    if (gathered.length > 0 && (isLarge || sizeBytes >= PIECE_BYTES)) {
      yield Buffer.concat(gathered)
      gathered = []
      sizeBytes = 0
    }
    if (isLarge) yield piece
  }
  gathered.push(TAIL)
  yield Buffer.concat(gathered)
}
