/**
 * Makes the samples' computed files again: pictures, sound, clip and the table of angles. Everything
 * in them follows from a law or a number below; the results are committed, so nobody has to run it.
 *
 *   node node/samples/make-media.ts     needs ffmpeg for the clip, and DejaVu Sans for the poster
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'

const EDUCATION = join(import.meta.dirname, 'education', 'light-and-colour')
const HEALTH = join(import.meta.dirname, 'health', 'hands-and-water')
const DEGREE = Math.PI / 180
const WATER = 1.333

await writeFile(
  join(EDUCATION, 'r1', 'tables', 'refraction-angles.csv'),
  anglesTable(['water', 'crown glass', 'diamond']),
)
await writeFile(
  join(EDUCATION, 'r2', 'tables', 'refraction-angles.csv'),
  anglesTable(['water', 'acrylic', 'crown glass', 'flint glass', 'diamond']),
)
await makeSpectrum(join(EDUCATION, 'r1', 'pictures', 'spectrum.png'))
await makeRainbow(join(EDUCATION, 'r1', 'pictures', 'rainbow.jpg'))
await makeClip(join(EDUCATION, 'r1', 'media', 'refraction.webm'))
await writeFile(join(HEALTH, 'r1', 'media', 'twenty-seconds.wav'), twentySeconds())
await makePoster(join(HEALTH, 'r1', 'pictures', 'poster.png'))

/** Snell's law from air (n = 1), for each tenth of a degree. */
function anglesTable(materials: readonly string[]): string {
  const index: Record<string, number> = {
    water: WATER,
    acrylic: 1.49,
    'crown glass': 1.52,
    'flint glass': 1.62,
    diamond: 2.417,
  }
  const rows = materials.flatMap(material =>
    Array.from({ length: 901 }, (_, tenths) => {
      const inside = Math.asin(Math.sin((tenths / 10) * DEGREE) / index[material]!) / DEGREE
      return `${material},${(tenths / 10).toFixed(1)},${inside.toFixed(2)}`
    }),
  )
  return `${['material,angle_in_air_degrees,angle_inside_degrees', ...rows].join('\n')}\n`
}

type Rgb = readonly [red: number, green: number, blue: number]

/** A screen's nearest colour to one wavelength: straight lines between the usual corner points. */
function colourOf(nanometres: number): Rgb {
  const corners: readonly (readonly [number, Rgb])[] = [
    [380, [0.2, 0, 0.3]],
    [420, [0.45, 0, 0.9]],
    [440, [0, 0, 1]],
    [490, [0, 1, 1]],
    [510, [0, 1, 0]],
    [580, [1, 1, 0]],
    [645, [1, 0, 0]],
    [700, [0.9, 0, 0]],
    [750, [0.2, 0, 0]],
  ]
  const upper = corners.findIndex(([at]) => at >= nanometres)
  if (upper <= 0) return upper === 0 ? corners[0]![1] : [0, 0, 0]
  const [from, before] = corners[upper - 1]!
  const [to, after] = corners[upper]!
  const share = (nanometres - from) / (to - from)
  return mix(before, after, share)
}

function mix(a: Rgb, b: Rgb, share: number): Rgb {
  return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share]
}

function image(width: number, height: number, pixel: (x: number, y: number) => Rgb) {
  const bytes = Buffer.alloc(width * height * 3)
  for (let at = 0; at < bytes.length; at += 3) {
    const colour = pixel((at / 3) % width, Math.floor(at / 3 / width))
    for (let channel = 0; channel < 3; channel++) {
      bytes[at + channel] = Math.round(Math.min(Math.max(colour[channel]!, 0), 1) * 255)
    }
  }
  return sharp(bytes, { raw: { width, height, channels: 3 } })
}

/** 380 to 750 nm from left to right, with a tick at each 50 nm. */
async function makeSpectrum(path: string): Promise<void> {
  const [width, height] = [740, 120]
  const picture = image(width, height, (x, y) => {
    const nanometres = 380 + x / 2
    const isTick = y > 100 && Math.abs(nanometres / 50 - Math.round(nanometres / 50)) < 0.012
    if (y > 100) return isTick ? [0.1, 0.1, 0.1] : [1, 1, 1]
    return colourOf(nanometres)
  })
  await picture.png({ compressionLevel: 9, palette: true }).toFile(path)
}

/** Both bows by their angles from the point opposite to the sun, which stands at 20° here. */
async function makeRainbow(path: string): Promise<void> {
  const [width, height] = [960, 540]
  const degreesPerPixel = 120 / width
  const antisolarY = height * 0.86 + 20 / degreesPerPixel
  const picture = image(width, height, (x, y) => {
    const angle = Math.hypot(x - width / 2, y - antisolarY) * degreesPerPixel
    const horizon = height * 0.86 + 6 * Math.sin(x / 90) + 3 * Math.sin(x / 31)
    if (y > horizon) return mix([0.24, 0.36, 0.16], [0.12, 0.2, 0.09], (y - horizon) / (height * 0.14))
    const sky = mix([0.36, 0.42, 0.5], [0.63, 0.68, 0.72], y / horizon)
    const light = angle < 40 ? 0.1 : angle < 51 ? -0.05 : 0 // brighter inside, Alexander's dark band between
    const base: Rgb = [sky[0] + light, sky[1] + light, sky[2] + light]
    return plus(plus(base, bow(angle, 40.4, 42.4), 0.42), bow(angle, 53.6, 50.3), 0.2)
  })
  await picture.jpeg({ quality: 82, mozjpeg: true }).toFile(path)
}

/** The bow's colour at `angle`, between where violet and red stand, with soft edges. */
function bow(angle: number, violet: number, red: number): Rgb {
  const share = (angle - violet) / (red - violet)
  if (share < -0.25 || share > 1.25) return [0, 0, 0]
  const colour = colourOf(410 + Math.min(Math.max(share, 0), 1) * 260)
  const edge = Math.min(1, (share + 0.25) * 4, (1.25 - share) * 4)
  return [colour[0] * edge, colour[1] * edge, colour[2] * edge]
}

function plus(a: Rgb, b: Rgb, weight: number): Rgb {
  return [a[0] + b[0] * weight, a[1] + b[1] * weight, a[2] + b[2] * weight]
}

/** Eight seconds: the angle goes from 5° to 80° and back; widths show how much light goes each way. */
async function makeClip(path: string): Promise<void> {
  const frames = 8 * 15
  const args =
    '-y -loglevel error -f image2pipe -framerate 15 -c:v png -i - -c:v libvpx-vp9 -b:v 0 -crf 40 -pix_fmt yuv420p -row-mt 0 -threads 1 -fflags +bitexact -flags:v +bitexact'
  const ffmpeg = spawn('ffmpeg', [...args.split(' '), path], { stdio: ['pipe', 'inherit', 'inherit'] })
  for (let frame = 0; frame < frames; frame++) {
    const angle = 42.5 - 37.5 * Math.cos((2 * Math.PI * frame) / frames)
    const png = await sharp(Buffer.from(refractionFrame(angle)))
      .png()
      .toBuffer()
    if (!ffmpeg.stdin.write(png)) await once(ffmpeg.stdin, 'drain')
  }
  ffmpeg.stdin.end()
  await once(ffmpeg, 'close')
}

function refractionFrame(angle: number): string {
  const [x, y, length] = [240, 135, 230]
  const inside = Math.asin(Math.sin(angle * DEGREE) / WATER) / DEGREE
  const reflected = reflectedShare(angle, inside)
  const ray = (degrees: number, down: number, width: number) =>
    `<path d="M${x} ${y}L${x + length * Math.sin(degrees * DEGREE)} ${y + down * length * Math.cos(degrees * DEGREE)}" stroke="#c23b22" stroke-width="${width.toFixed(2)}"/>`
  return `<svg xmlns="http://www.w3.org/2000/svg" width="480" height="270">
    <rect width="480" height="270" fill="#fff"/><rect y="${y}" width="480" height="135" fill="#cfe8f3"/>
    <path d="M${x} 8V262" stroke="#33475b" stroke-dasharray="7 6"/>
    ${ray(-angle, -1, 6)}${ray(inside, 1, 6 * (1 - reflected))}${ray(angle, -1, Math.max(6 * reflected, 0.4))}
    <g font-family="DejaVu Sans, sans-serif" font-size="16" fill="#1b1f24">
      <text x="14" y="26">air: ${angle.toFixed(0)}°</text><text x="14" y="258">water: ${inside.toFixed(0)}°</text>
      <text x="466" y="26" text-anchor="end">reflected: ${(100 * reflected).toFixed(0)} %</text>
    </g></svg>`
}

/** Fresnel's equations for unpolarised light: the mean of both polarisations. */
function reflectedShare(angle: number, inside: number): number {
  const [a, b] = [angle * DEGREE, inside * DEGREE]
  const across = (Math.cos(a) - WATER * Math.cos(b)) / (Math.cos(a) + WATER * Math.cos(b))
  const along = (Math.cos(b) - WATER * Math.cos(a)) / (Math.cos(b) + WATER * Math.cos(a))
  return (across ** 2 + along ** 2) / 2
}

/** 8-bit mono PCM at 8 kHz: a tick each second, a higher tone at the end. */
function twentySeconds(): Buffer {
  const rate = 8_000
  const samples = Buffer.alloc(rate * 21, 128)
  for (let second = 0; second <= 20; second++) {
    const isLast = second === 20
    const [pitch, lengthSeconds] = isLast ? [1_320, 0.9] : [660, 0.06]
    for (let at = 0; at < rate * lengthSeconds; at++) {
      const fade = Math.min(1, at / 40, (rate * lengthSeconds - at) / 200)
      samples[second * rate + at] = 128 + Math.round(80 * fade * Math.sin((2 * Math.PI * pitch * at) / rate))
    }
  }
  const header = Buffer.alloc(44)
  header.write('RIFF', 0)
  header.writeUInt32LE(36 + samples.length, 4)
  header.write('WAVEfmt ', 8)
  header.writeUInt32LE(16, 16)
  header.writeUInt16LE(1, 20) // PCM
  header.writeUInt16LE(1, 22) // mono
  header.writeUInt32LE(rate, 24)
  header.writeUInt32LE(rate, 28)
  header.writeUInt16LE(1, 32)
  header.writeUInt16LE(8, 34)
  header.write('data', 36)
  header.writeUInt32LE(samples.length, 40)
  return Buffer.concat([header, samples])
}

async function makePoster(path: string): Promise<void> {
  const lines = [
    'after the toilet',
    'after cleaning a child',
    'before cooking',
    'before eating',
    'before feeding a child',
    'after touching animals',
  ]
  const rows = lines.map((line, row) => {
    const y = 250 + row * 88
    const colour = line.startsWith('after') ? '#c2763b' : '#2a6f97'
    return `<circle cx="88" cy="${y - 12}" r="26" fill="${colour}"/><path d="M76 ${y - 12}l9 10 17-20" stroke="#fff" stroke-width="6" fill="none"/>
      <text x="140" y="${y}" font-size="36">${line}</text>`
  })
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="720" height="960" font-family="DejaVu Sans, sans-serif" fill="#16211c">
    <rect width="720" height="960" fill="#fbfdfb"/><rect width="720" height="150" fill="#1b4965"/>
    <text x="360" y="72" font-size="46" text-anchor="middle" fill="#fff">Wash your hands</text>
    <text x="360" y="124" font-size="32" text-anchor="middle" fill="#cfe8f3">with soap, rub for 20 seconds</text>
    ${rows.join('')}
    <path d="M40 800H680" stroke="#cdd6d1" stroke-width="3"/>
    <text x="360" y="860" font-size="30" text-anchor="middle">Clean water that runs. Any soap.</text>
    <text x="360" y="905" font-size="30" text-anchor="middle">Dry with a clean cloth or in the air.</text></svg>`
  await sharp(Buffer.from(svg)).png({ compressionLevel: 9, palette: true, colours: 64 }).toFile(path)
}
