/**
 * The settings of links and contact windows, as they stand in `tower.config.json` under `links`:
 * met by one schema, once. Without any there is one link, `default`, that may be used whenever it is up.
 */
import { z } from 'zod'
import { EdgeError } from '../manifests/errors.ts'

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
const Bytes = z.number().int().positive()

const WindowSettings = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.-]{1,40}$/)
    .optional(),
  /** All days when absent. */
  days: z.array(z.enum(DAYS)).nonempty().optional(),
  start: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'HH:MM is needed'),
  minutes: z
    .number()
    .int()
    .positive()
    .max(7 * 24 * 60),
  /** IANA name. */
  timeZone: z.string().refine(isTimeZone, 'not a time zone, such as Africa/Nairobi'),
  /** Down and up, each time the window is open. */
  bytesMax: Bytes.optional(),
})

const LinkSettings = z.strictObject({
  name: z.string().regex(/^[\w.-]{1,40}$/),
  /** Whenever it is up, when absent. */
  windows: z.array(WindowSettings).nonempty().optional(),
  /** What a GiB costs, in any unit: the cheapest link that is up is taken. */
  costPerGiB: z.number().nonnegative().default(0),
  /** Never more than this, per second. */
  bytesPerSecondMax: Bytes.optional(),
  /** Down and up, per calendar month (UTC). */
  bytesPerMonthMax: Bytes.optional(),
  /** Address of the interface to go out by. */
  localAddress: z.union([z.ipv4(), z.ipv6()]).optional(),
  proxyUrl: z.url({ protocol: /^http$/ }).optional(),
  /** Must answer (any HTTP status) for the link to be up; the upstream itself when absent. */
  probeUrl: z.url({ protocol: /^https?$/ }).optional(),
  /** People share it: leave them their part, as queueing delay tells. */
  shared: z.boolean().default(true),
})

export type WindowSettings = z.infer<typeof WindowSettings>
export type LinkSettings = z.infer<typeof LinkSettings>

export const DEFAULT_LINK: LinkSettings = Object.freeze({ name: 'default', costPerGiB: 0, shared: false })

/** @throws EdgeError `CONFIG_INVALID` */
export function parseLinks(value: unknown): readonly LinkSettings[] {
  if (value === undefined) return [DEFAULT_LINK]
  const parsed = z
    .array(LinkSettings)
    .nonempty()
    .refine(
      links => new Set(links.map(({ name }) => name)).size === links.length,
      'two links have the same name',
    )
    .safeParse(value)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(({ path, message }) => `links.${path.join('.')}: ${message}`)
  throw new EdgeError('CONFIG_INVALID', problems.join('; '))
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}
