/**
 * Finds what must not be in a file that others will clone: paths of one machine, hosts of package
 * registries, secrets, and text that an editor or a merge left behind.
 */
import type { Source } from './import-direction.ts'

const FORBIDDEN: readonly (readonly [what: string, pattern: RegExp])[] = [
  ['a path of one machine', /(?:^|[\s'"`=(:])\/(?:home|Users|root|work|mnt|workspace)\/[\w.-]+/],
  ['a file in a shared temporary folder', /['"`]\/tmp\/[\w.-]+/],
  [
    'the host of a package registry',
    /\b(?:registry\.npmjs\.org|registry\.yarnpkg\.com|deb\.debian\.org|proxy\.golang\.org|pypi\.org\/simple)\b/,
  ],
  ['a private key', /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\n[A-Za-z0-9+/=]{20}/],
  ['the mark of a merge conflict', /^(?:<{7}|>{7}) /m],
]
const TEXT =
  /\.(?:[cm]?[jt]s|json|md|html|css|csv|svg|sh|conf|service|socket|timer|ya?ml|txt)$|(?:^|\/)[^.]+$/
/** What this file and its test say on purpose. */
const OWN = /^\.ci\/tracked-text/

export function isText(path: string): boolean {
  return TEXT.test(path) && !OWN.test(path)
}

/** One line per finding, `path:line: what is wrong`; empty when all is well. */
export function findForbiddenText(sources: readonly Source[]): string[] {
  return sources.flatMap(({ path, text }) =>
    FORBIDDEN.flatMap(([what, pattern]) => {
      const at = text.search(pattern)
      return at < 0 ? [] : [`${path}:${text.slice(0, at + 1).split('\n').length}: ${what}`]
    }),
  )
}
