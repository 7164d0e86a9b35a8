/**
 * The portal's one style sheet: small screens first, light and dark, no font or picture to fetch.
 */
import { sha256Of } from '../../../manifests/digest.ts'

export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f7f5f0; --card: #fff; --ink: #1d2530; --soft: #55606e; --line: #e0dcd2;
  --accent: #0b6b5d; --accent-ink: #fff; --good: #0b6b5d; --late: #8a4b00; --late-ground: #fff1dc; --good-ground: #e2f3ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12171d; --card: #1b222b; --ink: #eef1f4; --soft: #a7b2bf; --line: #303a46;
    --accent: #4cc5ae; --accent-ink: #06211c; --good: #6fd8c3; --late: #ffc37a; --late-ground: #38280f; --good-ground: #10312b;
  }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
.skip { position: absolute; left: -99rem } .skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: .5rem 1rem }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 1rem 1.1rem }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem 1.4rem }
.brand { display: inline-flex; align-items: center; gap: .55rem; font-weight: 700; font-size: 1.15rem; color: inherit; text-decoration: none; margin-right: auto }
.brand svg { width: 1.7rem; height: 1.7rem; color: var(--accent) }
header nav { display: flex; gap: 1.1rem } a { color: var(--accent) } header nav a { text-decoration: none } header nav a:hover { text-decoration: underline }
a:focus-visible, input:focus-visible, button:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .25rem }
h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2; margin: .8rem 0 .4rem; letter-spacing: -.01em; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 0 0 .2rem; overflow-wrap: anywhere } .lead { color: var(--soft); margin: 0 0 1.1rem; max-width: 44rem }
.banner { display: flex; gap: .6rem; border-radius: .7rem; padding: .7rem .95rem; margin: .2rem 0 1.1rem; background: var(--good-ground); color: var(--good) }
.banner.late { background: var(--late-ground); color: var(--late) } .banner p { margin: 0 } .banner strong { display: block }
form.search { display: flex; gap: .5rem; margin: 0 0 1.5rem; max-width: 38rem }
input[type=search] { flex: 1; min-width: 0; font: inherit; color: inherit; padding: .7rem .9rem; border: 1px solid var(--line); border-radius: .7rem; background: var(--card) }
button, .button { font: inherit; font-weight: 600; border: 0; border-radius: .7rem; padding: .7rem 1.1rem; background: var(--accent); color: var(--accent-ink); cursor: pointer; text-decoration: none; display: inline-block }
.cards { list-style: none; margin: 0; padding: 0; display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)) }
.card { position: relative; background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1rem 1.1rem; display: flex; flex-direction: column; gap: .35rem }
.card h2 a { color: inherit; text-decoration: none } .card h2 a::after { content: ""; position: absolute; inset: 0; border-radius: .9rem }
.card:hover { border-color: var(--accent) } .meta { color: var(--soft); font-size: .9rem; margin: 0; overflow-wrap: anywhere }
.tag { align-self: flex-start; font-size: .78rem; font-weight: 600; border-radius: 9rem; padding: .1rem .65rem; background: var(--good-ground); color: var(--good) }
.tag.late { background: var(--late-ground); color: var(--late) }
progress { width: 100%; height: .5rem; accent-color: var(--accent) }
.crumbs { font-size: .92rem; color: var(--soft); overflow-wrap: anywhere } .crumbs a { color: inherit }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .9rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .6rem .9rem; border-top: 1px solid var(--line); vertical-align: top }
thead th { border-top: 0; font-size: .82rem; color: var(--soft) } tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 10rem }
td.num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } th.num { text-align: right }
.away { color: var(--soft) } .more { margin: 1rem 0 } .empty { background: var(--card); border: 1px dashed var(--line); border-radius: .9rem; padding: 1.4rem; color: var(--soft) }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .35rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1rem 1.1rem; margin: 0 0 1.2rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere } footer { color: var(--soft); font-size: .88rem; padding-bottom: 2.5rem }
code { font-size: .92em; overflow-wrap: anywhere }
@media (max-width: 34rem) { .wide { display: none } th, td { padding: .55rem .7rem } }
@media (prefers-reduced-motion: no-preference) { .card { transition: border-color .15s } }
`.trim()

/** Named by its content, so browsers may keep it for ever. */
export const STYLE_PATH = `/assets/portal-${sha256Of(STYLE).slice(0, 16)}.css`
