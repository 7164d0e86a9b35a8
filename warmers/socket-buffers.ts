/**
 * Buffers that sockets read into, used again once what they brought is on disk: a new one for each
 * 64 KiB kept the collector busy for two of five CPU seconds of a fill (bench/store.ts).
 */
const BUFFER_BYTES = 256 * 1024
/** What fills less of a buffer is copied out of it: a slow link must not hold one for each packet. */
const COPIED_BYTES_MAX = BUFFER_BYTES / 8
const KEPT_MAX = 16

const free: Buffer[] = []
/** How many bytes each buffer that was passed on brought. */
const lent = new WeakMap<ArrayBufferLike, number>()

/** For `net.connect`'s `onread`. @param push takes what was read; false when no more may come for now. */
export function readingInto(push: (bytes: Buffer) => boolean, bytesMax = BUFFER_BYTES) {
  const open = () => take().subarray(0, bytesMax)
  let next = open()
  return {
    buffer: () => next,
    callback(length: number): boolean {
      if (length <= COPIED_BYTES_MAX) return push(Buffer.from(next.subarray(0, length)))
      const bytes = next.subarray(0, length)
      lent.set(bytes.buffer, length)
      next = open()
      return push(bytes)
    },
  }
}

/**
 * Nobody needs these bytes any more, nor any that came before them on their connection: a read may
 * bring a head and several parts of a body, and is over with the part that ends it.
 * @returns whether the next read may go there.
 */
export function giveBack(bytes: Uint8Array): boolean {
  if (lent.get(bytes.buffer) !== bytes.byteOffset + bytes.length || free.length >= KEPT_MAX) return false
  lent.delete(bytes.buffer)
  free.push(Buffer.from(bytes.buffer))
  return true
}

function take(): Buffer {
  return free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_BYTES)
}
