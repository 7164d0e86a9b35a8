/**
 * `/api/v1/{status,datasets,items}` and their OpenAPI document: one schema gives both.
 *
 * Read-only and public; what operators may change comes by another listener.
 */
import { OpenAPIHono, createRoute, z } from '@hono/zod-openapi'
import { EdgeError } from '../../manifests/errors.ts'
import { isDatasetName } from '../../manifests/dataset-name.ts'
import type { Library } from '../library.ts'
import { fieldsWith, problemOf } from './problem.ts'

const Freshness = z
  .object({
    fresh: z.boolean().describe('false once the metadata has expired; the content is authentic either way'),
    confirmedAt: z.iso.datetime({ offset: true }),
    expiresAt: z.iso.datetime({ offset: true }),
  })
  .openapi('Freshness')

const Dataset = z
  .object({
    dataset: z.string(),
    title: z.string(),
    revision: z.number().int(),
    publishedAt: z.string(),
    items: z.number().int(),
    expected: z.number().int().describe('bytes of the current revision'),
    present: z.number().int().describe('bytes of it that are here'),
    priority: z.number().int().min(0).max(3),
    freshness: Freshness,
    next: z
      .object({ revision: z.number().int(), expected: z.number().int(), present: z.number().int() })
      .optional(),
  })
  .openapi('Dataset')

const Item = z
  .object({
    dataset: z.string(),
    path: z.string(),
    size: z.number().int(),
    sha256: z.string(),
    cid: z.string(),
    mediaType: z.string(),
    priority: z.number().int().min(0).max(3),
    revision: z.number().int(),
    present: z.number().int().describe('bytes that are here'),
    expected: z.number().int().describe('bytes of the whole item'),
    tier: z.enum(['memory', 'hot', 'warm']).nullable(),
    verifiedAt: z.string().nullable(),
    pinned: z.boolean(),
    url: z.string(),
  })
  .openapi('Item')

const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    instance: z.string().optional(),
    code: z.string(),
  })
  .openapi('Problem')

const Status = z
  .looseObject({
    ready: z.boolean(),
    fresh: z.boolean().describe('whether the metadata of every dataset is fresh'),
    uptimeSeconds: z.number(),
    datasets: z.array(Dataset),
  })
  .openapi('Status')

const failures = {
  400: {
    description: 'Not a request we understand',
    content: { 'application/problem+json': { schema: Problem } },
  },
  404: { description: 'Unknown', content: { 'application/problem+json': { schema: Problem } } },
}
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { 'application/json': { schema } },
})

const statusRoute = createRoute({
  method: 'get',
  path: '/api/v1/status',
  summary: 'How the node is',
  responses: { 200: json('Status', Status) },
})
const datasetsRoute = createRoute({
  method: 'get',
  path: '/api/v1/datasets',
  summary: 'What publishers released, and how much of it is here',
  responses: { 200: json('Datasets', z.object({ datasets: z.array(Dataset) })) },
})
const itemsRoute = createRoute({
  method: 'get',
  path: '/api/v1/items',
  summary: 'Items by dataset and path',
  request: {
    query: z.object({
      dataset: z.string().refine(isDatasetName, 'two segments such as education/physics-book').optional(),
      q: z.string().max(200).optional().openapi({ description: 'words that must occur in the path' }),
      prefix: z.string().max(4096).optional(),
      after: z.string().max(8192).optional().openapi({ description: '`next` of the page before' }),
      limit: z.coerce.number().int().min(1).max(1_000).default(100),
    }),
  },
  responses: {
    200: json('Items', z.object({ items: z.array(Item), next: z.string().nullable() })),
    ...failures,
  },
})

export interface ApiParts {
  readonly library: Library
  readonly ready: () => boolean
  readonly status?: () => Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>>
}

export function createApi({ library, ready, status }: ApiParts): OpenAPIHono {
  const api = new OpenAPIHono({
    defaultHook: result => {
      if (!result.success) {
        const [issue] = result.error.issues
        throw new EdgeError('REQUEST_INVALID', `${issue?.path.join('.')}: ${issue?.message}`)
      }
    },
  })
  api.use(async (c, next) => {
    await next()
    if (!c.res.headers.has('Cache-Control')) c.res.headers.set('Cache-Control', 'no-cache')
    c.res.headers.set('Access-Control-Allow-Origin', '*')
    c.res.headers.set('X-Content-Type-Options', 'nosniff')
  })

  api.openapi(statusRoute, async c => {
    const datasets = [...library.datasets()]
    const fresh = datasets.every(({ freshness }) => freshness.fresh)
    const base = { ready: ready(), fresh, uptimeSeconds: Math.round(process.uptime()), datasets }
    return c.json({ ...(await status?.()), ...base }, 200)
  })
  api.openapi(datasetsRoute, c => c.json({ datasets: [...library.datasets()] }, 200))
  api.openapi(itemsRoute, c => {
    const { dataset, q, prefix, after, limit } = c.req.valid('query')
    const { items, next } = library.list({
      limit,
      ...(dataset === undefined ? {} : { dataset }),
      ...(q === undefined ? {} : { query: q }),
      ...(prefix === undefined ? {} : { prefix }),
      ...(after === undefined ? {} : { after }),
    })
    return c.json({ items: [...items], next }, 200)
  })
  api.doc31('/api/v1/openapi.json', {
    openapi: '3.1.0',
    info: {
      title: 'Towerlight node',
      version: '1',
      description: 'Read-only interface of a tower. Sizes in bytes.',
    },
  })
  api.notFound(() => {
    throw new EdgeError('NOT_FOUND', 'no such path in the API; see /api/v1/openapi.json')
  })
  api.onError((error, c) => {
    const { status: code, body } = problemOf(error, c.req.path)
    const more = fieldsWith(error, 30)
    for (let i = 0; i < more.length; i += 2) c.header(more[i] as string, more[i + 1] as string)
    return c.body(new Uint8Array(body), code as 404, {
      'Content-Type': 'application/problem+json',
      'Cache-Control': 'no-store',
    })
  })
  return api
}
