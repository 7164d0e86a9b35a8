/** The bytes that vectors are about (README.md beside this file), for tests. */
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** The first `sizeBytes` bytes of SHA-256('vector 0') ‖ SHA-256('vector 1') ‖ … */
export function stream(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(Math.ceil(sizeBytes / 32) * 32)
  for (let at = 0; at < sizeBytes; at += 32)
    bytes.write(hash('sha256', `vector ${at / 32}`, 'hex'), at, 'hex')
  return bytes.subarray(0, sizeBytes)
}

/** What the file says; each test knows its form. */
export function vectors(file: string): unknown {
  return JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8'))
}
