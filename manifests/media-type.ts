/**
 * Media types by file extension: what education and health datasets have. Anything else is
 * `application/octet-stream`, which browsers download instead of guessing.
 */
const TEXT = '; charset=utf-8'

const TYPES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    // pages
    html: `text/html${TEXT}`,
    htm: `text/html${TEXT}`,
    xhtml: `application/xhtml+xml${TEXT}`,
    css: `text/css${TEXT}`,
    js: `text/javascript${TEXT}`,
    mjs: `text/javascript${TEXT}`,
    wasm: 'application/wasm',
    webmanifest: 'application/manifest+json',
    // text and data
    txt: `text/plain${TEXT}`,
    md: `text/markdown${TEXT}`,
    csv: `text/csv${TEXT}`,
    tsv: `text/tab-separated-values${TEXT}`,
    ics: `text/calendar${TEXT}`,
    vtt: `text/vtt${TEXT}`,
    srt: `application/x-subrip${TEXT}`,
    json: 'application/json',
    geojson: 'application/geo+json',
    jsonl: 'application/jsonl',
    xml: 'application/xml',
    cnxml: 'application/xml',
    yaml: 'application/yaml',
    yml: 'application/yaml',
    sqlite: 'application/vnd.sqlite3',
    parquet: 'application/vnd.apache.parquet',
    // images
    svg: 'image/svg+xml',
    png: 'image/png',
    jpg: 'image/jpeg',
    jpeg: 'image/jpeg',
    gif: 'image/gif',
    webp: 'image/webp',
    avif: 'image/avif',
    ico: 'image/x-icon',
    tif: 'image/tiff',
    tiff: 'image/tiff',
    // sound and video
    mp3: 'audio/mpeg',
    m4a: 'audio/mp4',
    ogg: 'audio/ogg',
    oga: 'audio/ogg',
    opus: 'audio/ogg',
    wav: 'audio/wav',
    flac: 'audio/flac',
    mp4: 'video/mp4',
    m4v: 'video/mp4',
    webm: 'video/webm',
    ogv: 'video/ogg',
    mkv: 'video/matroska',
    '3gp': 'video/3gpp',
    m3u8: 'application/vnd.apple.mpegurl',
    // fonts
    woff: 'font/woff',
    woff2: 'font/woff2',
    ttf: 'font/ttf',
    otf: 'font/otf',
    // documents
    pdf: 'application/pdf',
    epub: 'application/epub+zip',
    zim: 'application/x-zim',
    h5p: 'application/zip',
    doc: 'application/msword',
    docx: 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
    xls: 'application/vnd.ms-excel',
    xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
    ppt: 'application/vnd.ms-powerpoint',
    pptx: 'application/vnd.openxmlformats-officedocument.presentationml.presentation',
    odt: 'application/vnd.oasis.opendocument.text',
    ods: 'application/vnd.oasis.opendocument.spreadsheet',
    odp: 'application/vnd.oasis.opendocument.presentation',
    rtf: 'application/rtf',
    // archives and programs
    zip: 'application/zip',
    gz: 'application/gzip',
    zst: 'application/zstd',
    xz: 'application/x-xz',
    tar: 'application/x-tar',
    '7z': 'application/x-7z-compressed',
    apk: 'application/vnd.android.package-archive',
  }),
)

/** @param path an item's path; only what follows the last dot of its last segment counts, in any case. */
export function mediaTypeOf(path: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1)
  const dot = name.lastIndexOf('.')
  const extension = dot > 0 ? name.slice(dot + 1).toLowerCase() : ''
  return TYPES.get(extension) ?? 'application/octet-stream'
}
