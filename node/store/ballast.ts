/**
 * A file of nothing, given up when the disk is full, so that metadata can be written and the node
 * starts (I7). It comes back when there is room again.
 */
import { existsSync, rmSync } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'

const FILE = 'ballast'
const BALLAST_BYTES_MAX = 8 * 1024 * 1024
const PIECE_BYTES = 256 * 1024

/** @returns whether there was something to give up. */
export function dropBallast(folder: string): boolean {
  const path = join(folder, FILE)
  if (!existsSync(path)) return false
  rmSync(path, { force: true })
  return true
}

/** @param reserveBytes a quarter of it at most is taken. */
export async function keepBallast(folder: string, reserveBytes: number, spareBytes: number): Promise<void> {
  const path = join(folder, FILE)
  const bytes = Math.min(BALLAST_BYTES_MAX, Math.floor(reserveBytes / 4))
  if (bytes === 0 || spareBytes < bytes || existsSync(path)) return
  try {
    await using file = await open(path, 'wx')
    for (let left = bytes; left > 0; left -= PIECE_BYTES)
      await file.write(Buffer.alloc(Math.min(PIECE_BYTES, left)))
    await file.sync()
  } catch {
    await rm(path, { force: true })
  }
}
