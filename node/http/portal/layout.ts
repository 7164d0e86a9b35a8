/**
 * The frame of every portal page: head, header, banner, footer. No scripts: everything works without.
 */
import { html } from 'hono/html'
import type { DatasetView } from '../../library.ts'
import { STYLE_PATH } from './style.ts'
import { agoText, dateText } from './words.ts'

export type Markup = ReturnType<typeof html>

export function layout(title: string, body: Markup): Markup {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${STYLE_PATH}">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<a class="brand" href="/"><svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="M9 22l2-12h2l2 12M8 22h8M10 10V6h4v4M12 6V4M4 5l3 2M20 5l-3 2M3 10h4M21 10h-4"/></svg>Towerlight</a>
<nav aria-label="Main"><a href="/data/">All datasets</a><a href="/status">Status</a></nav>
</header>
<main id="main">${body}</main>
<footer>Every byte served here is checked against its publisher’s signature before it leaves the tower.</footer>
</body>
</html>`
}

/** How fresh all this is, told as it is: authentic always, confirmed when. */
export function freshnessBanner(datasets: readonly DatasetView[], nowMs: number): Markup {
  if (datasets.length === 0) return html``
  const stale = datasets.filter(({ freshness }) => !freshness.fresh)
  const oldest = datasets.reduce((a, b) => (a.freshness.confirmedAt < b.freshness.confirmedAt ? a : b))
    .freshness.confirmedAt
  const ago = agoText(Date.parse(oldest), nowMs)
  if (stale.length === 0) {
    return html`<div class="banner" role="status"><p><strong>Up to date</strong>Last confirmed with the publishers ${ago}.</p></div>`
  }
  const which =
    stale.length === datasets.length ? 'What you see here' : `${stale.length} of ${datasets.length} datasets`
  return html`<div class="banner late" role="status"><p><strong>May be out of date</strong>${which} could not be confirmed since ${dateText(oldest)} (${ago}). It is authentic, but newer versions may exist.</p></div>`
}

export function searchForm(query: string): Markup {
  return html`<form class="search" action="/search" method="get" role="search">
<input type="search" name="q" value="${query}" placeholder="Search by name" aria-label="Search by name" maxlength="200" enterkeyhint="search">
<button>Search</button>
</form>`
}
