"""Ambiguous requests are refused, heads and bodies are bounded, and browsers get strict headers."""

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import gateway
from shared.environment import load_settings
from shared.errors import InvalidRequest
from shared.schemas import parse_chat_request
from shared.settings import Settings, SettingsError
from tests.conftest import StartSystem
from tests.fakes import Answer
from tests.raw_client import connected
from tests.raw_requests import AMBIGUOUS, CHAT, CHUNKED, HOST, SMUGGLED, chunked, post
from tests.responses import code_of
from tests.sse_client import text_of
from tests.system import System, ask

PAGE = Path(gateway.__file__ or "").parent / "page"


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_an_ambiguous_request_ends_the_connection(system: System, request_: bytes) -> None:
    async with connected(system.gateways[0].port) as connection:
        await connection.send(request_ + SMUGGLED)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-content-type-options"] == "nosniff"
        await connection.send(SMUGGLED)
        assert await connection.rest() == b""


@pytest.mark.parametrize(
    "request_",
    [
        post(HOST, f"Content-Length: {len(CHAT)}", body=CHAT),
        post(HOST, CHUNKED, body=chunked(CHAT)),
        post(HOST, "Transfer-Encoding: Chunked", body=chunked(CHAT)),
        post(HOST, CHUNKED, body=chunked(CHAT).replace(b"\r\n0\r\n", b"\r\n0;ext=1\r\nX-Trailer: 1\r\n", 1)),
    ],
)
@pytest.mark.parametrize("byte_by_byte", [False, True])
async def test_a_valid_request_is_followed_by_the_next(system: System, request_: bytes, byte_by_byte: bool) -> None:
    whole = request_ + SMUGGLED + SMUGGLED
    async with connected(system.gateways[0].port) as connection:
        await connection.send(*(whole[at : at + 1] for at in range(len(whole))) if byte_by_byte else (whole,))
        assert [(await connection.answer()).status for _ in range(3)] == [202, 200, 200]


TOO_LONG = 2 * 1024 * 1024
UNREAD = {
    "too large by its length": (post(HOST, f"Content-Length: {TOO_LONG}"), 413),
    "too large by its chunks": (post(HOST, CHUNKED, body=b"%x\r\n" % TOO_LONG + b" " * (TOO_LONG - 4096)), 413),
    "nowhere": (post(HOST, "Content-Length: 100", target="/nowhere"), 404),
    "a wrong method": (post(HOST, "Content-Length: 100", target="/healthz"), 405),
    "where no body is read": (post(HOST, "Content-Length: 100", target="/chat/x/cancel"), 404),
    "a bad cursor": (post(HOST, "Last-Event-ID: x", "Content-Length: 100", target="/chat/stream"), 400),
    "awaiting leave": (post(HOST, f"Content-Length: {TOO_LONG}", "Expect: 100-continue"), 413),
}


@pytest.mark.parametrize(("request_", "status"), UNREAD.values(), ids=UNREAD)
async def test_after_an_unread_body_no_bytes_count_as_a_request(system: System, request_: bytes, status: int) -> None:
    async with connected(system.gateways[0].port) as connection:
        await connection.send(request_)
        answer = await connection.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        await connection.send(SMUGGLED * 3)  # either the body or requests
        connection.end()
        assert await connection.rest() == b""


async def test_a_client_that_sends_its_whole_refused_body_can_read_the_response(system: System) -> None:
    """A socket that is closed with unread bytes makes the client's system discard the response."""
    async with connected(system.gateways[0].port) as connection:
        await connection.send(post(HOST, f"Content-Length: {TOO_LONG}"), *[b"x" * 65536] * (TOO_LONG // 65536))
        answer = await connection.answer()
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert await connection.rest() == b""


async def test_expect_100_continue_gets_100(system: System) -> None:
    async with connected(system.gateways[0].port) as connection:
        await connection.send(post(HOST, f"Content-Length: {len(CHAT)}", "Expect: 100-continue"))
        assert (await connection.answer()).status == 100
        await connection.send(CHAT + SMUGGLED)
        assert [(await connection.answer()).status for _ in range(2)] == [202, 200]


@pytest.mark.parametrize(
    "junk", [b"nonsense\r\n\r\n", b"X" * 100_000, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
)
async def test_junk_after_a_request_never_appears_in_its_response(system: System, junk: bytes) -> None:
    gate = asyncio.Event()
    system.fake.play("until-junk", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    body = json.dumps(ask("until-junk")).encode()
    async with connected(system.gateways[0].port) as connection:
        await connection.send(post(HOST, f"Content-Length: {len(body)}", target="/chat/stream", body=body))
        assert (await connection.head())[0] == 200
        await connection.until(b"event: token")
        await connection.send(junk)
        rest = await connection.rest()
        assert b"HTTP/1.1" not in rest
        assert b"nonsense" not in rest
    gate.set()


async def test_an_upgrade_is_ignored(system: System) -> None:
    for protocol in ("h2c", "websocket"):
        fields = f"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13"
        async with connected(system.gateways[0].port) as connection:
            await connection.send(f"GET /healthz HTTP/1.1\r\n{fields}\r\n\r\n".encode() + SMUGGLED)
            answer = await connection.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await connection.rest() == b""


# --- limits


@pytest.mark.parametrize(
    "head",
    [
        [b"GET /healthz HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 101, b"Host: localhost\r\n\r\n"],
        [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a" * 40_000, b"\r\n\r\n"],
        [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 40_000 + b"\r\n\r\n"],
        [b"GET /healthz?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
            *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 500,
        ],  # without an end
        [b"GET /healthz?", *[b"a" * 10_000] * 50],
    ],
)
async def test_a_head_over_the_limit_is_refused(system: System, head: list[bytes]) -> None:
    async with connected(system.gateways[0].port) as connection:
        await connection.send(*head)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (431, "headers_too_large")


TRAILED = post(HOST, CHUNKED, body=chunked(CHAT)[:-2])


@pytest.mark.parametrize(
    "more", [[b"X-A: b\r\n"] * 20_000, [b"X-A: ", *[b"a" * 10_000] * 20], [b"%x;" % 5, *[b"x" * 10_000] * 20]]
)
async def test_trailers_over_the_limit_are_refused(system: System, more: list[bytes]) -> None:
    whole = TRAILED if more[0].startswith(b"X") else TRAILED.removesuffix(b"0\r\n")
    async with connected(system.gateways[0].port) as connection:
        await connection.send(whole, *more)
        rest = await connection.rest()
        assert rest.count(b"HTTP/1.1 ") <= 1
        assert b"HTTP/1.1 2" not in rest


async def test_trailers_are_not_fields_of_the_request(system: System) -> None:
    ids = []
    for _ in range(2):
        async with connected(system.gateways[0].port) as connection:
            await connection.send(TRAILED + b"Idempotency-Key: smuggled\r\n\r\n")
            answer = await connection.answer()
            assert answer.status == 202
            ids.append(json.loads(answer.body)["stream_id"])
    assert ids[0] != ids[1]


async def test_endless_blank_lines_are_refused(system: System) -> None:
    async with connected(system.gateways[0].port) as connection:
        await connection.send(*[b"\r\n" * 5000] * 20)
        assert (await connection.answer()).status == 431


async def test_a_large_head_within_the_limit_is_accepted(system: System) -> None:
    fields = "".join(f"X-{i}: {'a' * 300}\r\n" for i in range(95))
    async with connected(system.gateways[0].port) as connection:
        await connection.send(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() * 2)
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]


async def test_an_unfinished_request_times_out(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, request_deadline_s=2)
    gate = asyncio.Event()
    system.fake.play("long", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    port = system.gateways[0].port
    body = json.dumps(ask("long")).encode()
    async with connected(port) as connection:
        await connection.send(post(HOST, f"Content-Length: {len(body)}", target="/chat/stream", body=body))
        await connection.until(b"event: token")
        await connection.send(b"\r\n")  # old clients end a body with it
        for sent in (b"", b"GET /heal", SMUGGLED + b"\r\n"):
            async with connected(port) as slow:
                await slow.send(sent)
                answers = await slow.rest()
                assert answers.count(b"HTTP/1.1 ") == sent.count(b"\r\n\r\n")
        async with connected(port) as slow:
            await slow.send(post(HOST, "Content-Length: 100", body=b'{"model'))
            answer = await slow.answer()
            assert (answer.status, answer.code) == (408, "request_timeout")
            slow.end()
            assert await slow.rest() == b""
        gate.set()  # the stream that was open all the time continues
        await connection.until(b"event: done")


DEEP = 100_000


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        (b'{"model":"m","messages":' + b"[" * DEEP, 400, "nested too deep"),
        (b'{"model":"m","messages":[],"x":' + b'{"a":' * DEEP, 400, "nested too deep"),
        (
            ask("m")
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"enum": [[1]] * 9000}},
                }
            },
            422,
            "more than 10000 values",
        ),
        (ask("m") | {"messages": [{"role": "user", "content": [3] * 256}] * 900}, 422, "messages.0.content.0"),
        (ask("m") | {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 257}]}, 422, "256"),
        (ask("m") | {"messages": [{"role": "user", "content": ""}] * 4097}, 422, "messages"),
        (
            b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":' + b"9" * 9000 + b"}",
            400,
            "number",
        ),
    ],
)
async def test_a_body_over_the_limits_of_its_content_is_refused(
    system: System, body: object, status: int, names: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await system.http.post(f"{system.url}/chat", content=raw)
    assert answer.status_code == status, answer.text
    assert names in answer.json()["error"]["message"]


def test_a_body_with_many_errors_gets_a_short_message() -> None:
    body = json.dumps(ask("m") | {"messages": [{"role": "user", "content": [3] * 256}] * 1300}).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_chat_request(body)
    assert len(refused.value.message) < 1000


# --- headers for browsers

STRICT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"])
async def test_the_page_has_a_strict_content_security_policy(system: System, path: str) -> None:
    answer = await system.http.get(system.url + path)
    assert answer.status_code == 200
    assert answer.headers.items() >= STRICT.items()
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert len(answer.headers.get_list("cache-control")) == 1


def test_the_page_has_no_inline_script_or_style() -> None:
    html = (PAGE / "index.html").read_text()
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not re.search(r"<style|<base|\sstyle=|\son\w+=|javascript:|https?://", html)


async def test_every_response_forbids_caching_and_sniffing(system: System) -> None:
    stream_id = await system.post("echo")
    await system.ended(stream_id)
    statuses = {
        ("GET", "/healthz"): 200,
        ("GET", "/readyz"): 200,
        ("GET", "/metrics"): 200,
        ("GET", "/v1/models"): 200,
        ("GET", f"/chat/{stream_id}"): 200,
        ("GET", f"/chat/stream/{stream_id}"): 200,
        ("POST", f"/chat/{stream_id}/cancel"): 202,
        ("GET", "/nowhere"): 404,
        ("GET", "/page/nowhere.js"): 404,
        ("PUT", "/chat"): 405,
        ("POST", "/chat"): 400,
        ("DELETE", f"/chat/{stream_id}"): 204,
    }
    for (method, path), status in statuses.items():
        answer = await system.http.request(method, system.url + path)
        assert answer.status_code == status, path
        assert answer.headers.get_list("cache-control") == ["no-store"], path
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path


async def test_no_page_loads_scripts_from_elsewhere(system: System) -> None:
    for path in ("/", "/ops", "/docs"):
        text = (await system.http.get(system.url + path)).text
        assert re.findall(r'(?:src|href)="([^"]*)"', text), path
        assert not re.search(r'(?:src|href)="(?!/|#)', text), path
        assert "<style" not in text
        assert not re.search(r"<script(?![^>]* src=)", text)


# --- pages of other origins

FRIEND = "https://chat.example.com"
STRANGER = "https://evil.example.com"
#: Headers of the SDKs of OpenAI and Anthropic in a browser, including their helpers (`stream`, `parse`).
HEADERS = (
    "authorization, content-type, last-event-id, idempotency-key, x-api-key, x-stainless-lang,"
    " x-stainless-package-version, x-stainless-os, x-stainless-arch, x-stainless-runtime,"
    " x-stainless-runtime-version, x-stainless-retry-count, x-stainless-timeout, x-stainless-read-timeout,"
    " x-stainless-helper, x-stainless-helper-method, user-agent, anthropic-version, anthropic-beta,"
    " anthropic-dangerous-direct-browser-access"
)


@pytest.fixture(scope="module")
async def open_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    origins = f"{FRIEND}, http://localhost:5173"
    system = System(
        tmp_path_factory.mktemp("cors"), gateways=1, workers=1, providers=("openai",), cors_origins=origins
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


def preflight(origin: str, method: str = "POST", headers: str = HEADERS) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def test_an_allowed_origin_may_send_and_read(open_system: System) -> None:
    url = open_system.url
    for origin in (FRIEND, "http://localhost:5173"):
        for method in ("GET", "POST", "DELETE"):
            response = await open_system.http.options(f"{url}/chat/stream", headers=preflight(origin, method))
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin
            assert response.headers["access-control-allow-credentials"] == "true"
            assert "Origin" in response.headers["vary"]
    async with await open_system.stream("echo", "one two", headers={"Origin": FRIEND}) as connection:
        assert connection.headers["access-control-allow-origin"] == FRIEND
        assert connection.headers["access-control-allow-credentials"] == "true"
        exposed = connection.headers["access-control-expose-headers"].split(", ")
        assert {"X-Stream-Id", "Location", "Retry-After", "X-RateLimit-Remaining-Tokens", "RateLimit-Reset"} < set(
            exposed
        )
        assert connection.headers["cache-control"] == "no-store"
        assert text_of(await connection.rest()) == "one two"
    refused = await open_system.http.post(f"{url}/chat", content=b"{", headers={"Origin": FRIEND})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, FRIEND)


@pytest.mark.parametrize(
    "origin",
    [STRANGER, "null", "http://chat.example.com", f"{FRIEND}:444", f"{FRIEND}.evil.com", "https://xchat.example.com"],
)
async def test_other_origins_get_no_cors_headers(open_system: System, origin: str) -> None:
    response = await open_system.http.options(f"{open_system.url}/chat", headers=preflight(origin))
    answer = await open_system.http.get(f"{open_system.url}/v1/models", headers={"Origin": origin})
    for refused in (response, answer):
        assert code_of(refused) == (403, "origin_refused")
        assert "HEADRACE_CORS_ORIGINS" in refused.json()["error"]["message"]
        assert not [name for name in refused.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("method", "headers"), [("PUT", HEADERS), ("POST", "x-other"), ("POST", "cookie"), ("GET", "x-headrace-user")]
)
async def test_an_allowed_origin_may_use_only_listed_methods_and_headers(
    open_system: System, method: str, headers: str
) -> None:
    response = await open_system.http.options(f"{open_system.url}/chat", headers=preflight(FRIEND, method, headers))
    assert response.status_code == 400


async def test_a_wildcard_origin_allows_no_credentials(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, cors_origins="*")
    response = await system.http.options(f"{system.url}/chat", headers=preflight(STRANGER))
    answer = await system.http.get(f"{system.url}/v1/models", headers={"Origin": STRANGER, "Cookie": "a=b"})
    for headers in (response.headers, answer.headers):
        assert headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in headers


async def test_without_the_setting_no_origin_is_allowed(system: System) -> None:
    response = await system.http.options(f"{system.url}/chat", headers=preflight(FRIEND))
    answer = await system.http.get(f"{system.url}/v1/models", headers={"Origin": FRIEND})
    for refused in (response, answer):
        assert code_of(refused) == (403, "origin_refused")
        assert not [name for name in refused.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origins",
    [
        "chat.example.com",
        "https://chat.example.com/",
        "https://chat.example.com/page",
        "https://chat.example.com?x",
        "https://chat.example.com#x",
        "https://user@chat.example.com",
        "https://*.example.com",
        "https://Chat.example.com",
        "https://chät.example.com",
        "https://chat.example.com:443",
        "http://chat.example.com:80",
        "https://chat.example.com:",
        "https://chat.example.com:x",
        "https://chat.example.com:99999",
        "https://chat.example.com\\@evil.example.com",
        "ftp://chat.example.com",
        "https://",
        "null",
        "*, https://chat.example.com",
        "https://good.example.com, bad",
    ],
)
def test_an_invalid_origin_stops_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("HEADRACE_CORS_ORIGINS", origins)
    with pytest.raises(SettingsError, match=r"^HEADRACE_CORS_ORIGINS: "):
        load_settings()


def test_origins_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "HEADRACE_CORS_ORIGINS",
        " https://a.example.com ,http://localhost:5173, http://[::1]:8081,chrome-extension://abcdef",
    )
    assert load_settings().cors_origins == (
        "https://a.example.com",
        "http://localhost:5173",
        "http://[::1]:8081",
        "chrome-extension://abcdef",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels set the size of a segment by themselves")
async def test_a_send_buffer_holds_several_segments(system: System) -> None:
    """Otherwise each part of a large response waits for a delayed acknowledgement: on loopback, 4 MB took 2.5 s."""
    with socket.create_connection(("127.0.0.1", system.gateways[0].port)) as connection:
        segment_bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    assert segment_bytes <= Settings.model_fields["send_buffer_bytes"].default // 4
