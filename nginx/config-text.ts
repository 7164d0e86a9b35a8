/**
 * NGINX's configuration as text, from settings alone. Pure.
 *
 * **Content is never cached or kept here.** NGINX checks no digest, so it gets no chance to serve
 * bytes from a disk of its own: `/data/`, `/sha256/`, `/ipfs/` and `/repo/` have no cache, and no
 * temporary files either (`proxy_max_temp_file_size 0`); bytes pass through memory only (I1). Portal pages,
 * listings and the API's lists are kept as long as the node says (seconds), and shown stale for at
 * most half an hour when the node is away.
 *
 * **Smuggling.** Requests go on exactly as they came (`proxy_pass` without a path), and the node refuses
 * whatever two parsers could read differently. **Privacy.** Addresses are cut before they are logged and not passed on.
 */
import { type NginxBuild, type NginxSettings, checkSettings } from './settings.ts'

/** @throws EdgeError `CONFIG_INVALID` */
export function nginxConfig(settings: NginxSettings, build: NginxBuild): string {
  checkSettings(settings)
  const { folder, user, workers, limits } = settings
  return `# Written by \`tower nginx --write\`; changes made here are lost when it runs again.
${user === undefined ? '' : `user ${user};\n`}worker_processes ${workers};
worker_rlimit_nofile 65536;
worker_shutdown_timeout 30s;
pid ${folder}/nginx.pid;
# Lines of level "error" name client addresses; these do not.
error_log ${folder}/logs/error.log crit;

events {
  worker_connections 8192;
}

http {
  default_type application/octet-stream;
  server_tokens off;
  charset off;
  etag off;
  sendfile on;
  tcp_nodelay on;
  merge_slashes off;
  underscores_in_headers off;
  server_names_hash_bucket_size 128;

  # Slow clients are let go, others are unaffected.
  client_header_timeout 10s;
  client_body_timeout 10s;
  send_timeout 30s;
  reset_timedout_connection on;
  keepalive_timeout 65s;
  keepalive_requests 100000;
  client_header_buffer_size 2k;
  large_client_header_buffers 4 8k;
  client_max_body_size 1k;

  limit_req_zone $binary_remote_addr zone=requests:10m rate=${limits.requestsPerSecond}r/s;
  limit_conn_zone $binary_remote_addr zone=connections:10m;
  limit_req_status 429;
  limit_conn_status 429;
  limit_req_log_level info;
  limit_conn_log_level info;

  # Addresses are cut to their network before anything is written (health content is read here).
  map $remote_addr $network {
    ~^(?<v4>\\d+\\.\\d+)\\. $v4.0.0/16;
    ~^(?<v6>[0-9a-f]+:[0-9a-f]*): $v6::/32;
    default unknown;
  }
  split_clients $request_id $sampled {
    1% 1;
    * 0;
  }
  map "$status:$sampled" $logged {
    ~^5 1;
    ~:1$ 1;
    default 0;
  }
  log_format tower escape=json '{"time":"$time_iso8601","network":"$network","method":"$request_method","status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"cache":"$upstream_cache_status","protocol":"$server_protocol"}';
  access_log ${folder}/logs/access.log tower buffer=32k flush=10s if=$logged;

  client_body_temp_path ${folder}/temp/body;
  proxy_temp_path ${folder}/temp/proxy;
  fastcgi_temp_path ${folder}/temp/fastcgi;
  uwsgi_temp_path ${folder}/temp/uwsgi;
  scgi_temp_path ${folder}/temp/scgi;
  proxy_cache_path ${folder}/cache levels=1:2 keys_zone=portal:4m max_size=64m inactive=30m use_temp_path=off;

${upstreams(settings)}
  # Who asks for a page, and who for JSON: one cached copy of each, whatever else Accept says.
  map $http_accept $kind {
    ~text/html text/html;
    ~application/(.*\\+)?json application/json;
    default "*/*";
  }

  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Tower-Role "";
  proxy_set_header X-Tower-Subject "";
  proxy_connect_timeout 2s;
  proxy_read_timeout 60s;
  proxy_send_timeout 30s;
  proxy_buffer_size 16k;
  proxy_buffers 8 64k;
  proxy_busy_buffers_size 128k;
  proxy_max_temp_file_size 0;

  ssl_protocols TLSv1.3;
  ssl_session_cache shared:tls:4m;
  ssl_session_timeout 1d;
  ssl_session_tickets off;
  ssl_early_data off;

${publicServers(settings, build)}
${adminServer(settings, build)}}
`
}

const TRIES_OF_ONE = 8

function upstreams({ nodes, admin }: NginxSettings): string {
  const many = nodes.length > 1
  // One node is named several times: a request that its restart cut off is tried again at the same address,
  // and each kept connection that died with it and was not noticed yet costs a try.
  // Several have each their share of the content, so each keeps less of it twice; the next one takes over.
  const servers = many
    ? nodes.map(node => `    server ${node} max_fails=3 fail_timeout=2s;`)
    : Array.from({ length: TRIES_OF_ONE }, () => `    server ${nodes[0]} max_fails=0;`)
  return `  map $uri $content_key {
    "~^/sha256/(?<digest>[0-9a-f]{64})$" $digest;
    default $uri;
  }
  upstream nodes {
    hash $content_key consistent;
${servers.join('\n')}
    keepalive 128;
    keepalive_timeout 60s;
    keepalive_requests 1000000;
  }
  ${many ? 'proxy_next_upstream error timeout invalid_header http_502 http_503 http_504;' : 'proxy_next_upstream error invalid_header;'}
  proxy_next_upstream_tries ${many ? Math.max(3, Math.min(nodes.length, 4)) : TRIES_OF_ONE};
  proxy_next_upstream_timeout 15s;
${admin ? `  upstream admin {\n    server ${admin.upstream} max_fails=0;\n    keepalive 8;\n  }\n` : ''}`
}

function publicServers(settings: NginxSettings, build: NginxBuild): string {
  const { names, httpPort, httpsPort, tls, host } = settings
  const [main] = names as [string]
  const at = (port: number) => `${host === undefined ? '' : `${host}:`}${port}`
  const [major, minor, patch] = build.version
  const http2Directive = major > 1 || minor > 25 || (minor === 25 && patch >= 1)
  const port = httpPort === 80 ? '' : `:${httpPort}`
  return `  # In the clear: what is served is public and carries its digests, and phones do not know our authority.
  server {
    listen ${at(httpPort)} default_server;
    server_name ${names.join(' ')};
    # Phones ask somebody else's address whether they are online: lead them to the landing page.
    location = /generate_204 { return 302 http://${main}${port}/; }
    location = /gen_204 { return 302 http://${main}${port}/; }
    location = /hotspot-detect.html { return 302 http://${main}${port}/; }
    location = /library/test/success.html { return 302 http://${main}${port}/; }
    location = /connecttest.txt { return 302 http://${main}${port}/; }
    location = /ncsi.txt { return 302 http://${main}${port}/; }
    location = /canonical.html { return 302 http://${main}${port}/; }
    location = /success.txt { return 302 http://${main}${port}/; }
${publicLocations(settings)}  }

  server {
    listen ${at(httpsPort)} ssl${build.http2 && !http2Directive ? ' http2' : ''} default_server;
${build.http2 && http2Directive ? '    http2 on;\n' : ''}${build.http3 ? `    listen ${at(httpsPort)} quic reuseport default_server;\n    add_header Alt-Svc 'h3=":${httpsPort}"; ma=86400' always;\n` : ''}    server_name ${names.join(' ')};
    ssl_certificate ${tls.certificate};
    ssl_certificate_key ${tls.key};
${tls.public ? '    add_header Strict-Transport-Security "max-age=31536000" always;\n' : ''}${publicLocations(settings)}  }
`
}

function publicLocations({ limits }: NginxSettings): string {
  return `    if ($request_method !~ ^(?:GET|HEAD|OPTIONS)$) { return 405; }
    limit_req zone=requests burst=${limits.burst} nodelay;
    limit_conn connections ${limits.connections};
    error_page 405 @method;
    error_page 429 @slower;
    error_page 502 504 =503 @away;

    # Operators' and publishers' paths have a listener of their own.
    location = /metrics { return 404; }
    location ^~ /publish { return 404; }

    location / {
      proxy_pass http://nodes;
      proxy_set_header Accept $kind;
      proxy_cache portal; # for how long, and how stale when the node is away, its Cache-Control says
      proxy_cache_key "$kind $request_uri";
      proxy_cache_methods GET HEAD;
      proxy_cache_lock on;
      proxy_cache_background_update on;
      proxy_ignore_headers Vary;
    }
    location ~ ^/data/(?:.*[^/])$ {
      proxy_pass http://nodes;
    }
    location ^~ /sha256/ { proxy_pass http://nodes; }
    location ^~ /ipfs/ { proxy_pass http://nodes; }
    location ^~ /repo/ { proxy_pass http://nodes; }
    location = /livez { proxy_pass http://nodes; }
    location = /readyz { proxy_pass http://nodes; }
    location = /api/v1/events {
      proxy_pass http://nodes;
      proxy_buffering off;
      proxy_read_timeout 1h;
    }

    location @method {
      internal;
      add_header Allow "GET, HEAD, OPTIONS" always;
      ${problem(405, 'METHOD_NOT_ALLOWED', 'Method not allowed', 'this address is read with GET, HEAD and OPTIONS')}
    }
    location @slower {
      internal;
      add_header Retry-After 1 always;
      ${problem(429, 'OVERLOADED', 'Too many requests', 'more requests than one client may make; ask again in a second')}
    }
    location @away {
      internal;
      add_header Retry-After 2 always;
      ${problem(503, 'NOT_READY', 'Not available now', 'the node is starting or busy; ask again in a moment')}
    }
`
}

/**
 * Roles come from the subject of the client certificate, `OU=<role>`, which our own authority signed. A comma
 * inside another part of the subject is escaped there, and does not begin a new part.
 */
function adminServer(
  { admin, host, names, tls }: NginxSettings,
  { http2, version: [, minor] }: NginxBuild,
): string {
  if (!admin) return ''
  return `
  map $ssl_client_s_dn $tower_role {
    "~(?:^|(?<!\\x5c),)OU=(?<role>tower_operator|community_admin|national_auditor|publisher)(?:,|$)" $role;
    default "";
  }
  map "$tower_role $request_method" $may_api {
    "~^(?:tower_operator|community_admin) " 1;
    "~^(?:national_auditor|publisher) (?:GET|HEAD)$" 1;
    default 0;
  }
  map $tower_role $may_publish {
    publisher 1;
    default 0;
  }
  map $tower_role $may_measure {
    tower_operator 1;
    national_auditor 1;
    default 0;
  }
  server {
    listen ${host === undefined ? '' : `${host}:`}${admin.port} ssl${http2 && minor < 25 ? ' http2' : ''} default_server;
    server_name ${names.join(' ')};
    ssl_certificate ${tls.certificate};
    ssl_certificate_key ${tls.key};
    ssl_client_certificate ${tls.clientCa};
    ssl_verify_client on;
    ssl_verify_depth 1;
    limit_conn connections 32;
    error_page 403 495 496 =403 @refused;
    error_page 502 504 =503 @away;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Tower-Role $tower_role;
    proxy_set_header X-Tower-Subject $ssl_client_s_dn;

    location / { return 403; }
    location ^~ /publish {
      if ($may_publish = 0) { return 403; }
      client_max_body_size 1100m;
      client_body_timeout 60s;
      proxy_request_buffering off;
      proxy_next_upstream off;
      proxy_read_timeout 300s;
      proxy_pass http://admin;
    }
    location ^~ /api/ {
      if ($may_api = 0) { return 403; }
      client_max_body_size 64k;
      proxy_pass http://admin;
    }
    location = /metrics {
      if ($may_measure = 0) { return 403; }
      proxy_pass http://admin;
    }
    location @refused {
      internal;
      ${problem(403, 'NOT_AUTHORISED', 'Not allowed', 'the certificate presented has no role that allows this')}
    }
    location @away {
      internal;
      add_header Retry-After 2 always;
      ${problem(503, 'NOT_READY', 'Not available now', 'the node is starting or busy; ask again in a moment')}
    }
  }
`
}

function problem(status: number, code: string, title: string, detail: string): string {
  return `types { }
      default_type application/problem+json;
      add_header Cache-Control no-store always;
      return ${status} '${JSON.stringify({ type: 'about:blank', title, status, detail, code })}';`
}
