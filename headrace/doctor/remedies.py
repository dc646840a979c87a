"""Lines to set in a proxy, by fault. Those of nginx are tested with nginx (tests/test_doctor_proxies.py); those of
others are from their documentation."""

from typing import Final

from headrace.doctor.findings import Remedies

AUTHORIZATION: Final[Remedies] = {
    "nginx": 'remove proxy_set_header Authorization "" and auth_basic',
    "Traefik": "remove basicAuth with removeHeader, and headers.customRequestHeaders.Authorization",
    "Caddy": "remove header_up -Authorization",
}
BUFFERING: Final[Remedies] = {
    "nginx": "proxy_buffering off; and no proxy_ignore_headers X-Accel-Buffering",
    "Caddy": "flush_interval -1 in reverse_proxy",
    "Traefik": "remove the middleware buffering",
    "Cloudflare": "a Configuration Rule with Response body buffering: None",
}
COMPRESSION: Final[Remedies] = {
    "nginx": "gzip off; or no text/event-stream and no * in gzip_types",
    "Caddy": "no encode for these paths",
    "Traefik": "compress.excludedContentTypes: text/event-stream",
    "Cloudflare": "a Compression Rule that disables compression",
}
LAST_EVENT_ID: Final[Remedies] = {
    "nginx": 'remove proxy_set_header Last-Event-ID ""; and no proxy_pass_request_headers off',
    "Caddy": "remove header_up -Last-Event-ID",
    "Traefik": "remove headers.customRequestHeaders.Last-Event-ID",
}
CACHE: Final[Remedies] = {
    "nginx": "proxy_cache off; or no proxy_ignore_headers Cache-Control",
    "Cloudflare": "a Cache Rule with Bypass cache",
}
HTTP_10: Final[Remedies] = {"nginx": 'proxy_http_version 1.1; proxy_set_header Connection "";'}
CHUNKED: Final[Remedies] = {"nginx": "chunked_transfer_encoding on;"}
REDIRECT: Final[Remedies] = {
    "nginx": "return 403; for all paths but /, or return 308 https://$host$request_uri;",
    "Traefik": "redirectScheme on the router of / only",
    "Cloudflare": "Always Use HTTPS off for these paths",
}
BODY: Final[Remedies] = {
    "nginx": "client_max_body_size 32m;",
    "Caddy": "request_body max_size 32MiB",
    "Traefik": "buffering.maxRequestBodyBytes: 33554432",
}
ORIGIN: Final[Remedies] = {
    "nginx": "let OPTIONS pass, and remove proxy_hide_header and add_header for Access-Control-…",
}


def idle(heartbeat_s: float) -> Remedies:
    """Return lines for an idle timeout of three heartbeats."""
    seconds = round(3 * heartbeat_s)
    return {
        "nginx": f"proxy_read_timeout {seconds}s;",
        "Caddy": f"transport http {{ read_timeout {seconds}s }}",
        "Traefik": "entryPoints.NAME.transport.respondingTimeouts.writeTimeout: 0",
        "any": f"or HEADRACE_HEARTBEAT_S={max(1, round(heartbeat_s / 10))} at the gateways",
    }


def held(total_s: float) -> Remedies:
    """Return lines for responses whose status is held back until the first output."""
    return {"nginx": f"location /v1/ {{ proxy_read_timeout {round(total_s)}s; … }}"}
