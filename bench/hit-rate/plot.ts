/** Lines in a box, as SVG that reads on light and dark pages alike. */

export interface Line {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
  readonly isDashed?: boolean
}

export interface Plot {
  readonly title: string
  readonly xTitle: string
  readonly lines: readonly Line[]
  /** Where the x axis has marks, with their texts; x is drawn to the scale of its logarithm when `isLog`. */
  readonly marks: readonly (readonly [x: number, text: string])[]
  readonly isLog?: boolean
}

const WIDTH = 640
const HEIGHT = 340
const LEFT = 48
const RIGHT = 130
const TOP = 30
const BOTTOM = 44
const COLOURS = ['#0b6e4f', '#c8553d', '#5b5f97', '#e0a100', '#3b8ea5', '#8a6d3b', '#777777', '#b23a6f']

export function svgOf({ title, xTitle, lines, marks, isLog }: Plot): string {
  const scale = isLog ? Math.log : (x: number) => x
  const points = lines.flatMap(line => line.points)
  const xs = points.map(([x]) => scale(x))
  const ys = points.map(([, y]) => y)
  const [xMin, xMax] = [Math.min(...xs), Math.max(...xs)]
  const yMin = Math.floor(Math.min(...ys) * 10) / 10
  const yMax = Math.ceil(Math.max(...ys) * 10) / 10
  const across = (x: number) => LEFT + ((scale(x) - xMin) / (xMax - xMin || 1)) * (WIDTH - LEFT - RIGHT)
  const down = (y: number) => HEIGHT - BOTTOM - ((y - yMin) / (yMax - yMin || 1)) * (HEIGHT - TOP - BOTTOM)
  const parts = [text(LEFT, 18, title, 'font-weight="bold"')]
  const steps = Math.round((yMax - yMin) * 10)
  for (let step = 0; step <= steps; step++) {
    const y = yMin + step / 10
    parts.push(`<path d="M${LEFT} ${at(down(y))}H${WIDTH - RIGHT}" stroke="#8884"/>`)
    parts.push(text(LEFT - 6, down(y) + 4, y.toFixed(1), 'text-anchor="end"'))
  }
  for (const [x, mark] of marks)
    parts.push(text(across(x), HEIGHT - BOTTOM + 16, mark, 'text-anchor="middle"'))
  parts.push(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, xTitle, 'text-anchor="middle"'))
  for (const [n, line] of lines.entries()) {
    const colour = COLOURS[n % COLOURS.length]
    const path = line.points.map(([x, y]) => `${at(across(x))} ${at(down(y))}`).join('L')
    const dash = line.isDashed ? ' stroke-dasharray="5 4"' : ''
    parts.push(`<path d="M${path}" fill="none" stroke="${colour}" stroke-width="1.8"${dash}/>`)
    parts.push(text(WIDTH - RIGHT + 10, TOP + 12 + n * 17, line.name, `fill="${colour}"`))
  }
  const style = 'font-family="system-ui, sans-serif" font-size="12" fill="#888"'
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" ${style}>\n${parts.join('\n')}\n</svg>\n`
}

function text(x: number, y: number, content: string, more: string): string {
  return `<text x="${at(x)}" y="${at(y)}" ${more}>${content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`
}

function at(n: number): string {
  return n.toFixed(1)
}
