/**
 * Amounts of bytes as people write and read them: `512MiB`, `20 GB`, `1.5k`.
 *
 * Units with an `i` are powers of 1024 (KiB), without one of 1000 (kB); a bare number is bytes.
 */

const POWER = { '': 0, k: 1, m: 2, g: 3, t: 4 } as const
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const

/** @returns bytes, rounded; undefined when `text` is not an amount or not a safe integer. */
export function parseByteSize(text: string): number | undefined {
  const [, digits, prefix = '', binary] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim()) ?? []
  if (digits === undefined || (binary !== '' && prefix === '')) return undefined
  const power = POWER[prefix.toLowerCase() as keyof typeof POWER]
  const bytes = Math.round(Number(digits) * (binary === '' ? 1000 : 1024) ** power)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** Three significant digits: `0 B`, `19.3 KiB`, `1.20 GiB`. */
export function formatByteSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit === 0 ? value.toFixed(0) : value.toPrecision(3)} ${UNITS[unit]}`
}
