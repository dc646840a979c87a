"""A gateway without authentication serves this machine alone, on every route, and no page of another site."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartSystem
from tests.raw_client import RawAnswer, connected
from tests.raw_requests import CHAT
from tests.routes import every_route
from tests.system import System

CROSS, SAME_SITE = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"
NAVIGATES = ("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
EVIL = "Origin: https://evil.example"
FRIEND = "https://friend.example"


async def call(
    system: System,
    *fields: str,
    method: str = "POST",
    path: str = "/chat",
    version: str = "HTTP/1.1",
    host: str | None = None,
) -> RawAnswer:
    """Send a request with exactly these fields, and with a chat request as its body if it is a POST. A body that
    declares itself as text needs no preflight. ``PORT`` in a field becomes the gateway's port."""
    port = system.gateways[0].port
    body = CHAT if method == "POST" else b""
    about_body = ("Content-Type: text/plain", f"Content-Length: {len(body)}") if body else ()
    lines = (f"{method} {path} {version}", f"Host: {host or 'localhost:PORT'}", *fields, *about_body)
    async with connected(port) as connection:
        await connection.send("\r\n".join(lines).replace("PORT", str(port)).encode() + b"\r\n\r\n" + body)
        return await connection.answer()


def outcome(answer: RawAnswer) -> int | str:
    return answer.code if answer.status == 403 else answer.status


async def streams_of(system: System) -> set[str]:
    listed = (await system.http.get(f"{system.url}/chat", params={"limit": 100})).json()["streams"]
    return {stream["stream_id"] for stream in listed}


# --- HEADRACE_AUTH unset: requests from elsewhere

PROXIED = [
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Anything: x",
    "x-FORWARDED-for:",
    "X-Forwarded: x",
    "Forwarded: for=203.0.113.9",
    "Via: 1.1 p",
    "CF-Connecting-IP: 203.0.113.9",
    "CF-Ray: x",
    "CDN-Loop: cloudflare",
    "True-Client-IP: 203.0.113.9",
    "X-Real-IP: 203.0.113.9",
    "X-Client-IP: 203.0.113.9",
    "X-Cluster-Client-IP: 203.0.113.9",
    "X-Original-Forwarded-For: 203.0.113.9",
    "X-Envoy-External-Address: 203.0.113.9",
    "Fastly-Client-IP: 203.0.113.9",
    "Tailscale-User-Login: somebody@example.com",
]


@pytest.mark.parametrize("field", PROXIED)
async def test_a_header_that_proxies_add_is_refused(system: System, field: str) -> None:
    for method, path in (("GET", "/chat"), ("POST", "/chat"), ("GET", "/ops/overview"), ("GET", "/")):
        answer = await call(system, field, method=method, path=path)
        assert outcome(answer) == "not_local", (method, path)
        assert b"HEADRACE_AUTH" in answer.body


async def test_http_1_0_is_refused(system: System) -> None:
    """It is the version that nginx speaks to the servers behind it by default."""
    assert outcome(await call(system, version="HTTP/1.0", host="127.0.0.1:PORT")) == "not_local"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example:8000", "localhost.evil.example", "evil.localhost.example", "0.0.0.0:PORT", "10.0.0.1"),
        *("evil@127.0.0.1", "127.0.0.1#.evil.example", "127.0.0.1/x", "[::2]", "[", "[x]:1", "127.1", "localhost:x"),
    ],
)
async def test_a_host_that_is_no_loopback_name_is_refused(system: System, host: str) -> None:
    """A page can rebind its own name to a loopback address, and is then of the same origin."""
    for fields in ((), (f"Origin: http://{host}", "Sec-Fetch-Site: same-origin")):
        assert outcome(await call(system, *fields, host=host)) == "not_local"
    listed = await call(system, method="GET", path="/v1/models", host=host)
    assert b'"not_local"' in listed.body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:PORT", "127.0.0.1:PORT", "127.8.9.10", "[::1]:1", "a.localhost"]
)
async def test_a_loopback_name_is_accepted(system: System, host: str) -> None:
    for fields in ((), (f"Origin: http://{host.replace('LOCALHOST', 'localhost')}",)):
        assert outcome(await call(system, *fields, host=host)) == 202


# --- HEADRACE_AUTH unset: requests of pages

FOREIGN = [
    (EVIL,),
    (EVIL, CROSS),
    (EVIL, "Sec-Fetch-Site: same-origin"),  # a proxy that hides itself
    ("Origin: null",),
    ("Origin: http://localhost:PORT", EVIL),
    ("Origin: http://localhost:3000",),  # another server of this machine
    ("Origin: http://localhost:3000", SAME_SITE),
    ("Origin: http://127.0.0.1:PORT", CROSS),
    ("Origin: https://localhost:PORT",),
    ("Origin: http://localhost",),
    ("Origin: localhost:PORT",),
    ("Origin: http://localhost:PORT@evil.example",),
    ("Origin: http://localhost:PORT.evil.example",),
    ("Origin: chrome-extension://abcdef", "Sec-Fetch-Site: none"),
    ("Origin: file://",),
    ("Origin:",),
    (CROSS,),
    (SAME_SITE,),
    ("Sec-Fetch-Site: Cross-Site",),
    ("Sec-Fetch-Site: SAME-SITE ",),
    ("Sec-Fetch-Site: something-new",),
    ("Sec-Fetch-Site: same-origin", CROSS),
    (CROSS, *NAVIGATES),  # a form
]


@pytest.mark.parametrize("fields", FOREIGN, ids=", ".join)
async def test_another_page_starts_nothing(system: System, fields: tuple[str, ...]) -> None:
    before = await streams_of(system)
    answer = await call(system, *fields)
    assert outcome(answer) == "origin_refused"
    assert b"HEADRACE_AUTH" in answer.body
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert await streams_of(system) == before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), 200),
        (("Sec-Fetch-Site: none", *NAVIGATES), 200),
        (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"), 200),
        (("Sec-Fetch-Mode: cors",), 200),  # fetch of Node
        ((CROSS, *NAVIGATES), 200),  # a link
        ((SAME_SITE, "Sec-Fetch-Mode: Navigate"), 200),
        ((CROSS, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), "origin_refused"),
        ((CROSS, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), "origin_refused"),
        ((CROSS, *NAVIGATES, EVIL), "origin_refused"),
        ((SAME_SITE, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"), "origin_refused"),
    ],
)
async def test_a_link_may_open_the_page_and_nothing_else(
    system: System, fields: tuple[str, ...], expected: int | str
) -> None:
    for path in ("/", "/chat", "/page/app.js"):
        assert outcome(await call(system, *fields, method="GET", path=path)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: http://localhost:PORT",),
        ("Origin: http://LOCALHOST:PORT", "Sec-Fetch-Site: Same-Origin"),
        ("Sec-Fetch-Site: same-origin",),
        ("Sec-Fetch-Site: none",),
        # Development servers: their proxy replaces Host, and their page is of the same machine.
        ("Origin: http://localhost:5173", "Sec-Fetch-Site: same-origin"),
        ("Origin: https://127.0.0.1:5173", "Sec-Fetch-Site: same-origin"),
        ("User-Agent: node", "Sec-Fetch-Mode: cors", "Accept-Language: *"),
    ],
    ids=", ".join,
)
async def test_the_own_page_and_local_programs_are_accepted(system: System, fields: tuple[str, ...]) -> None:
    assert outcome(await call(system, *fields)) == 202


async def test_every_route_refuses_what_comes_from_elsewhere(system: System) -> None:
    for method, path in every_route():
        for fields, version in (
            (("X-Forwarded-For: 203.0.113.9",), "HTTP/1.1"),
            ((EVIL, CROSS), "HTTP/1.1"),
            ((), "HTTP/1.0"),
        ):
            answer = await call(system, *fields, method=method, path=path, version=version)
            assert answer.status == 403, (method, path, fields)
            assert b"authentication is disabled" in answer.body, (method, path, fields)


async def test_the_log_names_the_setting_and_the_start_warns(system: System) -> None:
    await call(system, "Via: 1.1 p")
    await call(system, EVIL)

    async def is_logged() -> bool:
        lines = [json.loads(line) for line in system.gateways[0].log.read_text().splitlines()]
        details = {line.get("code"): line["detail"] for line in lines if line["event"] == "request refused"}
        (start,) = (line["detail"] for line in lines if line["event"] == "authentication disabled")
        return (
            "HEADRACE_AUTH" in details.get("not_local", "")
            and "HEADRACE_CORS_ORIGINS" in details.get("origin_refused", "")
            and "only by keys or jwt" in start
        )

    await system.eventually(is_logged)


# --- listed origins, and HEADRACE_AUTH=none


@pytest.fixture(scope="module")
async def public(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A gateway for everybody, behind a proxy, and open to one other origin."""
    system = System(
        tmp_path_factory.mktemp("public"),
        gateways=1,
        workers=1,
        providers=("openai",),
        auth="none",
        trusted_proxies="127.0.0.1",
        cors_origins=FRIEND,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


HOST = "chat.example.com"
OWN = f"https://{HOST}"


@pytest.mark.parametrize(
    ("fields", "host", "expected"),
    [
        ((), HOST, 202),
        (("X-Forwarded-For: 203.0.113.9", "Via: 1.1 p"), HOST, 202),
        # The own page; TLS ends at the proxy.
        ((f"Origin: {OWN}",), HOST, 202),
        ((f"Origin: {OWN}",), f"{HOST}:443", 202),
        ((f"Origin: {OWN}:8443",), f"{HOST.upper()}:8443", 202),
        (("Origin: http://[2001:db8::1]:80",), "[2001:0db8::1]", 202),
        ((f"Origin: {OWN}", f"X-Forwarded-Host: {HOST}"), "127.0.0.1:PORT", 202),
        ((f"Origin: {OWN}", f"X-Forwarded-Host: {HOST}, inner.example.com"), "127.0.0.1:PORT", 202),
        ((f"Origin: {OWN}", "Sec-Fetch-Site: same-origin"), "127.0.0.1:PORT", 202),
        ((f"Origin: {FRIEND}", CROSS), HOST, 202),
        # Other pages.
        ((EVIL,), HOST, "origin_refused"),
        ((EVIL, CROSS), HOST, "origin_refused"),
        ((EVIL, f"X-Forwarded-Host: {HOST}"), HOST, "origin_refused"),
        ((f"Origin: {OWN}:444",), HOST, "origin_refused"),
        ((f"Origin: http://{HOST}", CROSS), HOST, "origin_refused"),
        (("Origin: https://www.example.com", SAME_SITE), HOST, "origin_refused"),
        (("Origin: null",), HOST, "origin_refused"),
        ((CROSS,), HOST, "origin_refused"),
        ((SAME_SITE, *NAVIGATES), HOST, "origin_refused"),
    ],
)
async def test_a_gateway_for_everybody_serves_only_its_own_and_listed_pages(
    public: System, fields: tuple[str, ...], host: str, expected: int | str
) -> None:
    assert outcome(await call(public, *fields, host=host)) == expected


async def test_a_forwarded_host_counts_only_from_a_trusted_proxy(start_system: StartSystem) -> None:
    """A wildcard origin needs no own page."""
    fields = (f"Origin: {OWN}", f"X-Forwarded-Host: {HOST}")
    system = await start_system(gateways=1, workers=1, auth="none", trusted_proxies="192.0.2.1")
    assert outcome(await call(system, *fields)) == "origin_refused"
    assert outcome(await call(system, version="HTTP/1.0")) == 202


async def test_a_preflight_is_answered_for_listed_origins_only(public: System) -> None:
    asked = "Access-Control-Request-Method: POST"
    allowed = await call(public, f"Origin: {FRIEND}", asked, CROSS, method="OPTIONS")
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, FRIEND)
    refused = await call(public, EVIL, asked, CROSS, method="OPTIONS")
    assert outcome(refused) == "origin_refused"
    assert b"HEADRACE" not in refused.body  # clients of this gateway are not its operators

    async def is_logged() -> bool:
        return "HEADRACE_CORS_ORIGINS" in public.gateways[0].log.read_text()

    await public.eventually(is_logged)


async def test_a_wildcard_admits_every_page(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, cors_origins="*")
    for fields in ((EVIL, CROSS), ("Origin: null",), (CROSS,)):
        assert outcome(await call(system, *fields)) == 202
    assert outcome(await call(system, EVIL, "Via: 1.1 p")) == "not_local"
