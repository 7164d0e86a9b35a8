/**
 * Everything that is not an item's bytes: the portal for people, listings, the API, health and metrics.
 *
 * Loaded with the first request that needs it; the API's schemas (and zod with them) with the first
 * API request. Pages may be kept by NGINX and browsers for a moment and shown stale when the node is
 * away; they say themselves how fresh the content is.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { EdgeError, isEdgeError } from '../../manifests/errors.ts'
import { answerListing } from './listing.ts'
import type { HttpMetrics } from './metrics.ts'
import { PORTAL_FIELDS, homePage, problemPage, searchPage, statusPage } from './portal/pages.ts'
import { STYLE, STYLE_PATH } from './portal/style.ts'
import { fieldsWith, problemOf } from './problem.ts'
import type { NodeServerParts } from './server.ts'

export interface AppParts extends NodeServerParts {
  readonly metrics: HttpMetrics
}

const SEARCH_LIMIT = 60

export type AppListener = (req: IncomingMessage, res: ServerResponse) => Promise<void>

export function createApp(parts: AppParts): AppListener {
  const { library, metrics } = parts
  const now = parts.now ?? Date.now
  const app = new Hono()

  app.use(async (c, next) => {
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') {
      throw new EdgeError('METHOD_NOT_ALLOWED', `${c.req.path} is read with GET and HEAD`)
    }
    await next()
    // HEAD says what GET would (RFC 9110 §9.3.2), its length too.
    if (c.req.method === 'HEAD' && !c.res.headers.has('Content-Length')) {
      const { byteLength } = await c.res.clone().arrayBuffer()
      c.res.headers.set('Content-Length', String(byteLength))
    }
  })

  app.get('/livez', c => c.text('ok\n', 200, { 'Cache-Control': 'no-store' }))
  app.get('/readyz', c => {
    if (isReady(parts)) return c.text('ok\n', 200, { 'Cache-Control': 'no-store' })
    throw new EdgeError('NOT_READY', 'no dataset has arrived yet')
  })
  app.get('/metrics', async c =>
    c.body(await metrics.text(), 200, {
      'Content-Type': metrics.registry.contentType,
      'Cache-Control': 'no-store',
    }),
  )

  app.get('/', c => c.html(homePage(library.datasets(), now()), 200, PORTAL_FIELDS))
  app.get('/search', c => {
    const query = (c.req.query('q') ?? '').slice(0, 200)
    const found =
      query.trim() === '' ? { items: [], next: null } : library.list({ query, limit: SEARCH_LIMIT })
    return c.html(
      searchPage(query, found.items, found.next !== null, library.datasets(), now()),
      200,
      PORTAL_FIELDS,
    )
  })
  app.get('/status', async c =>
    c.html(statusPage(library.datasets(), (await parts.status?.()) ?? {}, now()), 200, PORTAL_FIELDS),
  )
  app.get(STYLE_PATH, c =>
    c.body(STYLE, 200, {
      'Content-Type': 'text/css; charset=utf-8',
      'Cache-Control': 'public, max-age=31536000, immutable',
    }),
  )

  app.get('/data', c => c.redirect('/data/', 308))
  app.get('/data/*', c => answerListing(c, library, now()))

  let api: Promise<{ fetch(request: Request): Response | Promise<Response> }> | undefined
  app.get('/api/*', async c => {
    api ??= import('./api.ts').then(({ createApi }) => createApi({ ...parts, ready: () => isReady(parts) }))
    return (await api).fetch(c.req.raw)
  })

  app.notFound(() => {
    throw new EdgeError('NOT_FOUND', 'nothing is here')
  })
  app.onError((error, c) => {
    if (!isEdgeError(error)) {
      metrics.fault(error)
      parts.log?.error({ err: error }, 'an answer failed')
    }
    const { status, body } = problemOf(error, c.req.path)
    const more = fieldsWith(error, 30)
    const fields: Record<string, string> = {}
    for (let i = 0; i < more.length; i += 2) fields[more[i] as string] = more[i + 1] as string
    if (c.req.method === 'GET' && c.req.header('accept')?.includes('text/html')) {
      const detail = isEdgeError(error) ? error.message : 'something went wrong inside the node'
      const page = problemPage(status, detail)
      return c.html(page, status as 404, { ...PORTAL_FIELDS, 'Cache-Control': 'no-store', ...fields })
    }
    return c.body(new Uint8Array(body), status as 404, {
      'Content-Type': 'application/problem+json',
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'Access-Control-Allow-Origin': '*',
      ...fields,
    })
  })
  return getRequestListener(app.fetch, { overrideGlobalObjects: false })
}

/** How many items of a dataset are looked at while the library is still counting what is here. */
const READY_ITEMS = 50

function isReady({ ready, library }: NodeServerParts): boolean {
  if (ready) return ready()
  const datasets = library.datasets()
  if (datasets.some(({ present }) => present > 0)) return true
  return datasets.some(({ dataset }) =>
    library.list({ dataset, limit: READY_ITEMS }).items.some(({ present, expected }) => present === expected),
  )
}
