"""Findings about single requests through a URL: redirects, headers, caches, bodies, CORS, HTTP/2."""

import asyncio
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from headrace.doctor import remedies
from headrace.doctor.findings import Finding, note, ok, wrong
from headrace.doctor.gateway_calls import GatewayCalls, Reply, Unreachable
from headrace.doctor.gateways import PROBE, Seen

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Statuses after which clients send a GET instead of the POST, without its body.
_BECOMES_GET: Final = frozenset({301, 302, 303})
#: nginx refuses a body of more than 1 MiB unless it is told otherwise.
_BODY_BYTES: Final = 2 * 1024 * 1024
_ASKED_HEADERS: Final = "authorization,content-type,idempotency-key,last-event-id"
_ALPN_S: Final = 5.0


async def follow_redirect(gateway: GatewayCalls) -> tuple[GatewayCalls, list[Finding]]:
    """Return the gateway behind a redirect of the URL, and the finding about it."""
    try:
        reply = await gateway.call("POST", "/chat", json={})
    except Unreachable:
        return gateway, []  # found again, and reported, by the examination of the gateway
    if reply.status not in _REDIRECTS:
        return gateway, []
    target = reply.headers.get("location", "")
    findings = [_redirect(gateway.shown, reply.status, target)]
    if not target.endswith("/chat") or urlsplit(target).scheme not in {"http", "https"}:
        return gateway, findings
    # The key goes to no other host, and never from https to http.
    is_ours = urlsplit(target).hostname == urlsplit(gateway.url).hostname
    is_safe = urlsplit(target).scheme == "https" or not gateway.is_https
    return (gateway.at(target.removesuffix("/chat")) if is_ours and is_safe else gateway), findings


def _redirect(url: str, status: int, target: str) -> Finding:
    name = f"redirect {url}"
    to = f"HTTP {status} to {urlsplit(target).scheme}://{urlsplit(target).hostname}"
    if status in _BECOMES_GET:
        detail = f"{to}: clients repeat a POST as a GET without its body, and have sent their key in clear"
        return wrong("redirect", name, f"{detail}; use the https URL, and refuse or answer 308", remedies.REDIRECT)
    detail = f"{to}: clients that follow it send their key in clear first; use the target as the URL"
    return note("redirect", name, detail, remedies.REDIRECT)


async def clear_http(gateway: GatewayCalls) -> list[Finding]:
    """Examine the redirect of the same host's http address, if the URL is an https one on the default port."""
    parts = urlsplit(gateway.url)
    if not gateway.is_https or parts.port not in {None, 443}:
        return []
    async with GatewayCalls(f"http://{parts.hostname}", None) as clear:  # without the key
        _, findings = await follow_redirect(clear)
    return findings


def arrived(seen: Seen, gateway: GatewayCalls) -> Iterator[Finding]:
    """Judge the request that the gateway received."""
    connection, name = seen.connection, f"proxy {gateway.shown}"
    if not connection:
        return
    headers = set(connection["headers"])
    missing = [each for each in PROBE if each.lower() not in headers]
    if gateway.has_key and "authorization" not in headers:
        missing.insert(0, "Authorization")
    if missing:
        detail = f"{', '.join(missing)} did not arrive at the gateway: a proxy removes it"
        yield wrong("headers", name, detail, remedies.LAST_EVENT_ID if "Last-Event-ID" in missing else {})
    if connection["http_version"] == "1.0":
        detail = (
            "the proxy speaks HTTP/1.0 to the gateway: each request costs a connection, and an answer that breaks"
        )
        yield wrong("http_1_0", name, f"{detail} off looks complete", remedies.HTTP_10)
    if connection["forwarded"] == "ignored":
        detail = "X-Forwarded-For is ignored: logs have the proxy's address instead of the client's"
        yield note(
            "forwarded", name, f"{detail}; set HEADRACE_TRUSTED_PROXIES to the proxy's address at the gateways"
        )
    if gateway.is_https and connection["scheme"] == "http":
        detail = "the gateway takes this https request for http; set X-Forwarded-Proto in the proxy, and"
        yield note("scheme", name, f"{detail} HEADRACE_TRUSTED_PROXIES at the gateways")
    if not missing and connection["http_version"] != "1.0":
        yield ok("headers", name, "the headers of requests arrive")


async def caches(gateway: GatewayCalls) -> list[Finding]:
    """Ask twice, and see whether the second response is the first one's."""
    name = f"proxy {gateway.shown}"
    try:
        first = await gateway.call("GET", "/v1/models")
        second = await gateway.call("GET", "/v1/models")
    except Unreachable as error:
        return [wrong("cached_response", name, f"GET /v1/models: {error}")]
    if sign := first.cache or second.cache:
        detail = f"GET /v1/models was answered by a cache ({sign}): callers see each other's responses"
        return [wrong("cached_response", name, detail, remedies.CACHE)]
    return [ok("cached_response", name, "responses are not cached")]


async def body_limit(gateway: GatewayCalls, seen: Seen, *, whole: bool) -> list[Finding]:
    """Send a large body that no gateway accepts. ``whole``: as large as the gateway's own limit allows."""
    size = seen.max_body_bytes if whole else min(_BODY_BYTES, seen.max_body_bytes)
    limit = f"the gateway takes up to {seen.max_body_bytes} bytes"
    name, megabytes = f"proxy {gateway.shown}", f"{size / 2**20:.0f} MiB"
    headers = {"Content-Type": "application/json"}
    try:
        reply = await gateway.call("POST", "/chat", headers=headers, content=b" " * (size - 2) + b"{}")
    except Unreachable as error:
        detail = f"a body of {megabytes} broke the connection ({error}); {limit}"
        return [wrong("body_limit", name, detail, remedies.BODY)]
    if reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        detail = f"a body of {megabytes} is refused with 413 before the gateway; {limit}"
        return [wrong("body_limit", name, detail, remedies.BODY)]
    if reply.error is None:
        return [wrong("body_limit", name, f"a body of {megabytes}: {reply.text}; a proxy refuses it", remedies.BODY)]
    return [
        ok("body_limit", name, f"a body of {megabytes} arrives" + ("" if whole else "; --slow sends the largest one"))
    ]


async def cors(gateway: GatewayCalls, direct: GatewayCalls | None, origin: str) -> list[Finding]:
    """Send the preflight of a page of another origin, and its request."""
    name = f"CORS {origin}"
    try:
        problem = await _cors_problem(gateway, origin)
        if problem is None:
            return [ok("cors", name, "pages of this origin may call the gateway")]
        at_gateway = direct is not None and await _cors_problem(direct, origin) is None
    except Unreachable as error:
        return [wrong("cors", name, str(error))]
    if at_gateway:
        return [wrong("cors", name, f"{problem}, but a gateway allows it: a proxy changes it", remedies.ORIGIN)]
    return [wrong("cors", name, f"{problem}; add it to HEADRACE_CORS_ORIGINS at the gateways")]


async def _cors_problem(gateway: GatewayCalls, origin: str) -> str | None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": _ASKED_HEADERS}
    preflight = await gateway.call("OPTIONS", "/chat/stream", headers={"Origin": origin, **asked})
    if not _allows(preflight, origin) or preflight.status >= HTTPStatus.MULTIPLE_CHOICES:
        return f"the preflight got HTTP {preflight.status} without this origin in Access-Control-Allow-Origin"
    allowed = preflight.headers.get("access-control-allow-headers", "").lower()
    missing = [each for each in _ASKED_HEADERS.split(",") if each not in allowed and allowed != "*"]
    if missing:
        return f"the preflight does not allow the headers {', '.join(missing)}"
    reply = await gateway.call("GET", "/v1/models", headers={"Origin": origin})
    if not _allows(reply, origin):
        return "a response lacks this origin in Access-Control-Allow-Origin, or has it twice"
    if "x-stream-id" not in reply.headers.get("access-control-expose-headers", "").lower():
        return "pages cannot read X-Stream-Id: it is not in Access-Control-Expose-Headers"
    return None


def _allows(reply: Reply, origin: str) -> bool:
    return reply.headers.get("access-control-allow-origin") in {origin, "*"}


async def http_2(gateway: GatewayCalls) -> list[Finding]:
    """See whether browsers get HTTP/2, with which all tabs share one connection."""
    if not gateway.is_https:
        return []
    parts = urlsplit(gateway.url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # checked by the other requests; no key is sent
    context.set_alpn_protocols(["h2", "http/1.1"])
    name = f"proxy {gateway.shown}"
    try:
        async with asyncio.timeout(_ALPN_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context, server_hostname=parts.hostname
            )
    except (OSError, TimeoutError):
        return []
    protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    if protocol == "h2":
        return [ok("http_2", name, "HTTP/2 is on offer")]
    detail = "no HTTP/2: a browser opens six connections to a host, so the seventh stream of its tabs waits for ever"
    return [note("http_2", name, detail, {"nginx": "listen 443 ssl http2;"})]
