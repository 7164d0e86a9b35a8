/**
 * Sizes, times and classes as people say them. Pure; dates are UTC, since a tower may not know its zone.
 */
import type { PriorityClass } from '../../library.ts'

export const CLASS_NAME: Readonly<Record<PriorityClass, string>> = {
  0: 'Health',
  1: 'Education',
  2: 'General',
  3: 'Library',
}

/** `1.4 MB`: decimal units, as file managers show them. */
export function sizeText(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** `1 item`, `4 items`. */
export function countText(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** `just now`, `5 minutes ago`, `3 days ago`. */
export function agoText(thenMs: number, nowMs: number): string {
  const seconds = Math.max(0, (nowMs - thenMs) / 1000)
  if (Number.isNaN(seconds)) return 'at an unknown time'
  for (const [name, length] of SPANS) {
    const count = Math.floor(seconds / length)
    if (count >= 1) return `${countText(count, name)} ago`
  }
  return 'just now'
}

const SPANS = [
  ['year', 31_557_600],
  ['month', 2_629_800],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
] as const

/** `2 January 2025`. */
export function dateText(iso: string): string {
  const date = new Date(iso)
  if (Number.isNaN(date.getTime())) return 'unknown date'
  return date.toLocaleDateString('en-GB', { day: 'numeric', month: 'long', year: 'numeric', timeZone: 'UTC' })
}

export function percentOf(present: number, expected: number): number {
  if (expected <= 0) return 100
  const percent = Math.floor((present / expected) * 100)
  return present > 0 ? Math.max(1, Math.min(100, percent)) : 0
}
