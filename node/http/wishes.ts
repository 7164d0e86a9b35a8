/**
 * What one request wants different from the prebuilt fields: digests (RFC 9530 §4) and a file name.
 */
import type { IncomingMessage } from 'node:http'
import { type Wish, wishOf } from './digest-fields.ts'
import { disposition } from './item-headers.ts'

export interface Wishes {
  readonly contentDigest: Wish
  readonly reprDigest: Wish
  /** `?download`: save under the item's name instead of showing it. */
  readonly attachment: boolean
}

/** Undefined when there are none, which is nearly always. */
export function wishesOf({ headers }: IncomingMessage, query: string): Wishes | undefined {
  const content = headers['want-content-digest']
  const repr = headers['want-repr-digest']
  if (query === '' && content === undefined && repr === undefined) return undefined
  return {
    contentDigest: wishOf(single(content)),
    reprDigest: wishOf(single(repr)),
    attachment: query !== '' && new URLSearchParams(query).has('download'),
  }
}

/**
 * A copy of `fields` as wished.
 * @param wholeDigest for a GET answered with all bytes: what `Content-Digest` says there.
 */
export function withWishes(
  fields: string[],
  wishes: Wishes | undefined,
  path: string,
  wholeDigest?: string,
): string[] {
  if (!wishes) return fields
  let list = fields
  if (wishes.reprDigest === 'refused') list = without(list, 'Repr-Digest')
  if (wishes.contentDigest === 'refused') list = without(list, 'Content-Digest')
  if (wishes.contentDigest === 'wanted' && wholeDigest !== undefined) {
    list = [...list, 'Content-Digest', wholeDigest]
  }
  if (wishes.attachment) {
    list = [...without(list, 'Content-Disposition'), 'Content-Disposition', disposition(path)]
  }
  return list
}

function without(fields: readonly string[], name: string): string[] {
  return fields.filter((_, i) => fields[i - (i % 2)] !== name)
}

function single(field: string | string[] | undefined): string | undefined {
  return Array.isArray(field) ? field.join(', ') : field
}
