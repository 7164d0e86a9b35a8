/**
 * A dataset's name: exactly two segments, `education/physics-book`, that are safe in a URL, a TUF
 * path pattern and a file system. The first segment is what publishers are delegated by.
 */
import { EdgeError } from './errors.ts'

declare const brand: unique symbol
export type DatasetName = string & { readonly [brand]: 'dataset' }

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}\/[a-z0-9][a-z0-9._-]{0,63}$/

/** @throws EdgeError `REQUEST_INVALID` */
export function parseDatasetName(text: string): DatasetName {
  if (!isDatasetName(text)) {
    throw new EdgeError(
      'REQUEST_INVALID',
      'not a dataset name: two segments such as education/physics-book are needed, each of a-z, 0-9, dot, _ and - (at most 64, beginning with a letter or digit)',
    )
  }
  return text
}

export function isDatasetName(text: unknown): text is DatasetName {
  return typeof text === 'string' && NAME.test(text)
}
