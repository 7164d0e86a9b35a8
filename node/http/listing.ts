/**
 * `/data/`, `/data/<scope>/` and `/data/<dataset>/[<folder>/]`: what is there, and how much of it is here.
 *
 * HTML for browsers, JSON (items exactly as in `/api/v1/items`) for who asks for it in `Accept`. A folder
 * without its slash is redirected. Pages follow each other by a cursor, `?after=`.
 */
import type { Context } from 'hono'
import { EdgeError } from '../../manifests/errors.ts'
import type { Library } from '../library.ts'
import { PORTAL_FIELDS, datasetPage, datasetsPage } from './portal/pages.ts'
import { type DataPath, parseDataPath } from './request-path.ts'

const PAGE_ITEMS = 200

export function answerListing(c: Context, library: Library, nowMs: number): Response | Promise<Response> {
  const url = new URL(c.req.url)
  const rawPath = rawPathOf(c.req.url)
  const place = parseDataPath(rawPath)
  if (!rawPath.endsWith('/')) {
    checkFolder(library, place)
    return c.redirect(`${rawPath}/`, 308)
  }
  const after = url.searchParams.get('after') ?? undefined
  return place.dataset === undefined
    ? datasets(c, library, place.scope, nowMs)
    : items(c, library, { ...place, dataset: place.dataset }, after, nowMs)
}

function datasets(c: Context, library: Library, scope: string, nowMs: number): Response | Promise<Response> {
  const views = library.datasets().filter(({ dataset }) => scope === '' || dataset.startsWith(`${scope}/`))
  if (scope !== '' && views.length === 0) throw new EdgeError('DATASET_UNKNOWN', `no dataset of ${scope}`)
  if (wantsJson(c)) return c.json({ datasets: views }, 200, JSON_FIELDS)
  return c.html(datasetsPage(scope, views, nowMs), 200, { ...PORTAL_FIELDS, Vary: 'Accept' })
}

function items(
  c: Context,
  library: Library,
  place: DataPath & { dataset: string },
  after: string | undefined,
  nowMs: number,
): Response | Promise<Response> {
  const { dataset, path } = place
  const view = library.datasets().find(each => each.dataset === dataset)
  if (!view) throw new EdgeError('DATASET_UNKNOWN', `no dataset ${dataset}`)
  const prefix = path === '' ? '' : `${path}/`
  const page = library.list({ dataset, prefix, limit: PAGE_ITEMS, ...(after === undefined ? {} : { after }) })
  if (prefix !== '' && after === undefined && page.items.length === 0) {
    throw new EdgeError('ITEM_UNKNOWN', `no folder ${path} in ${dataset}`)
  }
  if (wantsJson(c)) return c.json({ dataset: view, prefix, ...page }, 200, JSON_FIELDS)
  return c.html(datasetPage(view, prefix, page.items, page.next, nowMs), 200, {
    ...PORTAL_FIELDS,
    Vary: 'Accept',
  })
}

/** @throws EdgeError `ITEM_UNKNOWN` unless something lies below. */
function checkFolder(library: Library, { dataset, path }: DataPath): void {
  if (dataset === undefined || path === '') return
  if (library.list({ dataset, prefix: `${path}/`, limit: 1 }).items.length > 0) return
  throw new EdgeError('ITEM_UNKNOWN', `no item ${path} in ${dataset}`)
}

const JSON_FIELDS = {
  'Cache-Control': PORTAL_FIELDS['Cache-Control'],
  'Access-Control-Allow-Origin': '*',
  'X-Content-Type-Options': 'nosniff',
  Vary: 'Accept',
}

/** JSON only for who names it and does not name HTML too, as browsers do. */
export function wantsJson(c: Context): boolean {
  const accept = c.req.header('accept') ?? ''
  return /\bapplication\/(?:[\w.+-]+\+)?json\b/.test(accept) && !accept.includes('text/html')
}

/** As the client sent it: escapes untouched. */
function rawPathOf(url: string): string {
  const withoutOrigin = url.slice(url.indexOf('/', url.indexOf('//') + 2))
  return withoutOrigin.split('?', 1)[0] as string
}
