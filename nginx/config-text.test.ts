import { expect, it } from 'vitest'
import { nginxConfig } from './config-text.ts'
import { NGINX_LIMITS, type NginxSettings, parseNginxBuild } from './settings.ts'

const settings: NginxSettings = {
  folder: '/var/lib/tower/nginx',
  names: ['tower.lan'],
  httpPort: 80,
  httpsPort: 443,
  nodes: ['127.0.0.1:8080'],
  admin: { port: 8443, upstream: 'unix:/run/tower/admin.sock' },
  tls: { certificate: '/c.pem', key: '/k.pem', clientCa: '/ca.pem', public: false },
  limits: NGINX_LIMITS,
  workers: 'auto',
}
const debian = parseNginxBuild('nginx version: nginx/1.22.1\nconfigure arguments: --with-http_v2_module')
const newest = parseNginxBuild(
  'nginx version: nginx/1.27.4\nconfigure arguments: --with-http_v2_module --with-http_v3_module',
)

it('keeps content out of every cache and every file (I1)', () => {
  const text = nginxConfig(settings, debian)
  const cached = [...text.matchAll(/location ([^{]+)\{([^}]*proxy_cache portal;[^}]*)\}/g)].map(([, place]) =>
    place!.trim(),
  )
  expect(cached).toEqual(['/', '/'])
  for (const place of ['~ ^/data/(?:.*[^/])$', '^~ /sha256/', '^~ /ipfs/', '^~ /repo/'])
    expect(text).toContain(`location ${place} {`)
  expect(text).toContain('proxy_max_temp_file_size 0;')
  expect(text).not.toMatch(/proxy_store|slice /)
})

it('speaks TLS 1.3 only, and what the build can beyond HTTP/1.1', () => {
  expect(nginxConfig(settings, debian)).toContain('listen 443 ssl http2 default_server;')
  const text = nginxConfig(settings, newest)
  expect(text).toContain('http2 on;')
  expect(text).toContain('listen 443 quic reuseport default_server;')
  expect(text.match(/ssl_protocols [^;]*/g)).toEqual(['ssl_protocols TLSv1.3'])
})

it('has no listener for operators unless there is something behind it', () => {
  const { admin: _, ...without } = settings
  expect(nginxConfig(without, debian)).not.toContain('ssl_verify_client')
  expect(nginxConfig(settings, debian)).toContain('ssl_verify_client on;')
})

it('insists on HTTPS only with a certificate that browsers know', () => {
  expect(nginxConfig(settings, debian)).not.toContain('Strict-Transport-Security')
  expect(nginxConfig({ ...settings, tls: { ...settings.tls, public: true } }, debian)).toContain(
    'Strict-Transport-Security',
  )
})

it.each([
  { names: ['tower.lan; return 200'] },
  { names: ['a b'] },
  { names: [] },
  { nodes: [] },
  { nodes: ['127.0.0.1:8080 backup'] },
  { nodes: ['unix:/x'] },
  { folder: '/a b' },
  { folder: 'relative' },
  { folder: '/a;b' },
  { admin: { port: 1, upstream: 'x y' } },
])('refuses what would be more than a word: %j', changed => {
  expect(() => nginxConfig({ ...settings, ...changed }, debian)).toThrow(
    expect.objectContaining({ code: 'CONFIG_INVALID' }),
  )
})

it('knows NGINX from what is not', () => {
  expect(debian).toEqual({ version: [1, 22, 1], http2: true, http3: false })
  expect(() => parseNginxBuild('Apache/2.4')).toThrow(expect.objectContaining({ code: 'DEPENDENCY_ABSENT' }))
})
