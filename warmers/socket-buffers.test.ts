import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { openHttpUpstream } from './http-upstream.ts'
import { giveBack } from './socket-buffers.ts'
import { serve, staticFiles, type Handler } from './testing.ts'
import type { Upstream } from './upstream.ts'

const options = { signal: new AbortController().signal, purpose: { dataset: 'health/who', reason: 'frame' } }
const file = randomBytes(6_000_000)
const PART_BYTES = 700_001

/** The same ranges, in chunks of HTTP's own (RFC 9112 §7.1), of which a read brings several. */
const inChunks: Handler = (request, response) => {
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!.map(Number)
  const head = `HTTP/1.1 206 Partial Content\r\ncontent-range: bytes ${first}-${last}/${file.length}\r\n`
  const parts = [Buffer.from(`${head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n`)]
  for (let at = first!; at <= last!; at += 9001) {
    const part = file.subarray(at, Math.min(at + 9001, last! + 1))
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'))
  }
  response.socket!.end(Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]))
}

/** As one that writes to a slow disk does: what was read is looked at, and given back, some parts later. */
async function readAndGiveBack(upstream: Upstream, offset: number): Promise<boolean> {
  const length = Math.min(PART_BYTES, file.length - offset)
  const held: { bytes: Uint8Array; from: number }[] = []
  let isRight = true
  const use = (count: number) => {
    for (const { bytes, from } of held.splice(0, count)) {
      isRight &&= file.subarray(from, from + bytes.length).equals(bytes)
      if (giveBack(bytes)) Buffer.from(bytes.buffer).fill(0) // as the next read will
    }
  }
  let from = offset
  for await (const bytes of upstream.readSpan('pack', { offset, length }, options)) {
    held.push({ bytes, from })
    from += bytes.length
    if (held.length > 40) use(30)
  }
  use(held.length)
  return isRight && from === offset + length
}

describe('bytes that a socket read', () => {
  it.each([
    ['with a length', staticFiles(async () => file)],
    ['in chunks of their own', inChunks],
    ['out of the middle of the whole file', staticFiles(async () => file, false)],
  ])('stay as they are until they are given back, %s', async (_name, handler) => {
    await using server = await serve(handler)
    await using upstream = openHttpUpstream(server.url, { onWire: () => {} })
    const offsets = Array.from({ length: 24 }, (_, n) => (n * 1_234_567) % (file.length - PART_BYTES))
    const right = await Promise.all(offsets.map(offset => readAndGiveBack(upstream, offset)))
    expect(right).toEqual(offsets.map(() => true))
  })
})
