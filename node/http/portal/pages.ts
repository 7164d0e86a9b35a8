/**
 * The portal's pages, as functions from what they show to HTML. Text is escaped by the template.
 */
import { html } from 'hono/html'
import type { DatasetView, ItemView } from '../../library.ts'
import { encodePath } from '../request-path.ts'
import { type Markup, freshnessBanner, layout, searchForm } from './layout.ts'
import { CLASS_NAME, agoText, countText, dateText, percentOf, sizeText } from './words.ts'

/** A page is dynamic but harmless to keep for seconds, and better stale than none, for half an hour at most. */
export const PORTAL_FIELDS = {
  'Cache-Control': 'public, max-age=5, stale-while-revalidate=60, stale-if-error=1795',
  'Content-Security-Policy':
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
} as const

export function homePage(datasets: readonly DatasetView[], nowMs: number): Markup {
  return layout(
    'Towerlight',
    html`<h1>Knowledge, right here</h1>
<p class="lead">Books, health information and more, kept in this tower and checked at every read. No internet needed.</p>
${freshnessBanner(datasets, nowMs)}
${searchForm('')}
${cards(datasets, nowMs)}`,
  )
}

export function datasetsPage(scope: string, datasets: readonly DatasetView[], nowMs: number): Markup {
  const title = scope === '' ? 'All datasets' : `Datasets of ${scope}`
  return layout(
    `${title} · Towerlight`,
    html`<h1>${title}</h1>${freshnessBanner(datasets, nowMs)}${searchForm('')}${cards(datasets, nowMs)}`,
  )
}

export function datasetPage(
  view: DatasetView,
  prefix: string,
  items: readonly ItemView[],
  next: string | null,
  nowMs: number,
): Markup {
  const base = `/data/${encodePath(view.dataset)}/`
  const start = items.find(
    ({ path, present, expected }) => path === `${prefix}index.html` && present === expected,
  )
  return layout(
    `${view.title || view.dataset} · Towerlight`,
    html`${breadcrumbs(view.dataset, prefix)}
<h1>${prefix === '' ? view.title || view.dataset : prefix.slice(0, -1).split('/').at(-1)}</h1>
<p class="lead">${countText(view.items, 'item')}, ${sizeText(view.expected)}. Edition ${view.revision}, published ${dateText(view.publishedAt)}.
${view.present < view.expected ? html` ${percentOf(view.present, view.expected)} % is here so far.` : ''}
${view.next ? html` Edition ${view.next.revision} is on its way (${percentOf(view.next.present, view.next.expected)} %).` : ''}</p>
${freshnessBanner([view], nowMs)}
${start ? html`<p><a class="button" href="${start.url}">Open</a></p>` : ''}
${itemTable(items, path => path.slice(prefix.length), `Items of ${view.title || view.dataset}`)}
${next === null ? '' : html`<p class="more"><a class="button" rel="next" href="${base}${encodePath(prefix)}?after=${encodeURIComponent(next)}">More items</a></p>`}`,
  )
}

export function searchPage(
  query: string,
  items: readonly ItemView[],
  more: boolean,
  datasets: readonly DatasetView[],
  nowMs: number,
): Markup {
  const found =
    query.trim() === ''
      ? html`<p class="empty">Type a word of a name.</p>`
      : itemTable(items, (path, dataset) => `${dataset} / ${path}`, 'Items found')
  return layout(
    `${query || 'Search'} · Towerlight`,
    html`<h1>Search</h1>${searchForm(query)}${freshnessBanner(datasets, nowMs)}${found}
${more ? html`<p class="more">There is more: add a word to narrow it down.</p>` : ''}`,
  )
}

export function statusPage(
  datasets: readonly DatasetView[],
  status: Readonly<Record<string, unknown>>,
  nowMs: number,
): Markup {
  const rows = Object.entries(status).filter(([, value]) => value !== null && value !== undefined)
  return layout(
    'Status · Towerlight',
    html`<h1>Status</h1>${freshnessBanner(datasets, nowMs)}
${datasets.map(
  view => html`<h2>${view.title || view.dataset}</h2>
<dl><dt>Dataset</dt><dd><a href="/data/${encodePath(view.dataset)}/">${view.dataset}</a></dd>
<dt>Edition</dt><dd>${view.revision}, published ${dateText(view.publishedAt)}</dd>
<dt>Confirmed</dt><dd>${agoText(Date.parse(view.freshness.confirmedAt), nowMs)}; ${view.freshness.fresh ? 'valid until' : 'expired on'} ${dateText(view.freshness.expiresAt)}</dd>
<dt>Here</dt><dd>${sizeText(view.present)} of ${sizeText(view.expected)}</dd></dl>`,
)}
${rows.length === 0 ? '' : html`<h2>The node</h2><dl>${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${typeof value === 'string' ? value : JSON.stringify(value)}</dd>`)}</dl>`}
<p class="meta">The same for programs: <a href="/api/v1/status">/api/v1/status</a></p>`,
  )
}

export function problemPage(status: number, detail: string): Markup {
  const title = PROBLEM_TITLE[status] ?? 'Something went wrong'
  return layout(
    `${title} · Towerlight`,
    html`<h1>${title}</h1><p class="lead">${detail}</p>${searchForm('')}<p><a class="button" href="/">To the start</a></p>`,
  )
}

const PROBLEM_TITLE: Readonly<Record<number, string>> = {
  400: 'This address cannot be right',
  404: 'Not found',
  410: 'Withdrawn by its publisher',
  503: 'Not here yet',
}

function cards(datasets: readonly DatasetView[], nowMs: number): Markup {
  if (datasets.length === 0)
    return html`<p class="empty">Nothing has arrived yet. Content comes with the next contact window.</p>`
  return html`<ul class="cards">${datasets.map(
    view => html`<li class="card">
<span class="tag">${CLASS_NAME[view.priority]}</span>
<h2><a href="/data/${encodePath(view.dataset)}/">${view.title || view.dataset}</a></h2>
<p class="meta">${countText(view.items, 'item')} · ${sizeText(view.expected)} · ${dateText(view.publishedAt)}</p>
${view.present < view.expected ? html`<progress value="${percentOf(view.present, view.expected)}" max="100" aria-label="How much is here"></progress><p class="meta">${percentOf(view.present, view.expected)} % here</p>` : ''}
${view.freshness.fresh ? '' : html`<span class="tag late">confirmed ${agoText(Date.parse(view.freshness.confirmedAt), nowMs)}</span>`}
</li>`,
  )}</ul>`
}

function itemTable(
  items: readonly ItemView[],
  nameOf: (path: string, dataset: string) => string,
  caption: string,
): Markup {
  if (items.length === 0) return html`<p class="empty">No items.</p>`
  return html`<div class="scroll"><table aria-label="${caption}">
<thead><tr><th scope="col">Name</th><th scope="col" class="wide">Type</th><th scope="col" class="num">Size</th><th scope="col">Here</th></tr></thead>
<tbody>${items.map(
    item => html`<tr><th scope="row"><a href="${item.url}">${nameOf(item.path, item.dataset)}</a></th>
<td class="wide">${item.mediaType.split(';', 1)[0]}</td><td class="num">${sizeText(item.size)}</td><td>${residencyText(item)}</td></tr>`,
  )}</tbody></table></div>`
}

function residencyText({ present, expected }: ItemView): Markup {
  if (present >= expected) return html`yes`
  if (present === 0) return html`<span class="away">not yet</span>`
  return html`<span class="away">${percentOf(present, expected)} %</span>`
}

function breadcrumbs(dataset: string, prefix: string): Markup {
  const folders = prefix === '' ? [] : prefix.slice(0, -1).split('/')
  const base = `/data/${encodePath(dataset)}/`
  return html`<nav class="crumbs" aria-label="Place"><a href="/data/">Datasets</a> / <a href="${base}">${dataset}</a>${folders.map(
    (folder, i) => html` / <a href="${base}${encodePath(folders.slice(0, i + 1).join('/'))}/">${folder}</a>`,
  )}</nav>`
}
