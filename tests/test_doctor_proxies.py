"""``headrace doctor`` names the faults of the real nginx, configured wrongly in one way at a time."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.cli import finish, headrace, listening
from tests.credentials import make_key
from tests.nginx import Nginx
from tests.plain_nginx import plain_nginx
from tests.ports import free_port
from tests.system import System

HEARTBEAT_S = 4
#: All that a proxy needs: everything below differs from it in a line or two.
GOOD = 'proxy_http_version 1.1; proxy_set_header Connection ""; client_max_body_size 32m;'
KEPT = "proxy_ignore_headers X-Accel-Buffering Cache-Control;"
CACHED = f"{GOOD} {KEPT} proxy_cache cache; proxy_cache_valid any 1m;"
GZIP = "gzip on; gzip_types text/event-stream; gzip_min_length 0;"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield a system with a demo that takes three seconds for an answer."""
    system = System(
        tmp_path_factory.mktemp("proxied"),
        gateways=1,
        workers=1,
        providers=(),
        auth="keys",
        demo_tokens_per_s=30,
        heartbeat_s=HEARTBEAT_S,
        cors_origins="https://app.example.com",
        trusted_proxies="127.0.0.1",
    )
    await system.start_broker()
    key = await make_key(system, "doctor")
    system.http.headers["Authorization"] = f"Bearer {key}"
    try:
        await system.start_processes()
        yield system
    finally:
        await system.stop()


@dataclass(frozen=True)
class Diagnosis:
    """Result of the command. ``faults``: details of the rows that are wrong, by check."""

    code: int | None
    checks: list[dict[str, Any]]
    err: str

    @property
    def faults(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in self.checks:
            if each["state"] == "WRONG":
                found[each["check"]] = f"{found.get(each['check'], '')} {each['detail']}"
        return found

    def states(self, check: str) -> list[str]:
        return [each["state"] for each in self.checks if each["check"] == check]

    def remedy(self, check: str) -> str:
        (found,) = {each["remedies"].get("nginx", "") for each in self.checks if each["check"] == check}
        return str(found)


async def examine(system: System, url: str, *options: str, key: str | None = None, **environment: str) -> Diagnosis:
    """Run the command like a developer with only a URL and a key."""
    own = key if key is not None else system.http.headers["Authorization"].removeprefix("Bearer ")
    nowhere = str(system.folder / "nowhere")
    process = await headrace(
        *("doctor", "--json", "--data-dir", nowhere, *options), HEADRACE_URL=url, HEADRACE_API_KEY=own, **environment
    )
    ended = await finish(process, timeout_s=120)
    assert "Traceback" not in ended.err, ended.err
    assert not own or own not in ended.out + ended.err
    return Diagnosis(ended.code, json.loads(ended.out)["checks"], ended.err)


FAULTS = {
    "buffers to compress": (f"{GOOD} {KEPT} {GZIP}", {"buffering", "compression"}, "all tokens arrived at once"),
    "compresses": (f"{GOOD} {GZIP}", {"compression"}, "Content-Encoding is gzip"),
    "caches": (CACHED, {"cached_response"}, "from a cache"),
    "caches POST": (f"{CACHED} proxy_cache_methods POST;", {"cached_post", "cached_response"}, "caches POST"),
    "speaks HTTP/1.0": ("client_max_body_size 32m;", {"http_1_0"}, "HTTP/1.0 to the gateway"),
    "does not chunk": (f"{GOOD} chunked_transfer_encoding off;", {"chunked"}, "not chunked"),
    "removes the cursor": (
        f'{GOOD} proxy_set_header Last-Event-ID "";',
        {"headers", "last_event_id"},
        "began again after Last-Event-ID",
    ),
    "removes the key": (f'{GOOD} proxy_set_header Authorization "";', {"authorization"}, "removes the header"),
    "limits bodies": (GOOD.replace("32m", "1m"), {"body_limit"}, "413 before the gateway"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_fault_of_a_proxy_is_named(guarded: System, tmp_path: Path, fault: str) -> None:
    lines, checks, words = FAULTS[fault]
    direct = ("--direct", guarded.url)
    async with plain_nginx(guarded.gateways[0].port, tmp_path, lines) as url:
        found = await examine(guarded, url, *direct)
    assert found.code == 1
    assert found.faults.keys() == checks, found.faults
    assert any(words in detail for detail in found.faults.values()), found.faults
    assert all(found.remedy(check) for check in checks)


async def test_a_good_proxy_has_no_fault(guarded: System, tmp_path: Path) -> None:
    async with plain_nginx(guarded.gateways[0].port, tmp_path, GOOD) as url:
        found = await examine(guarded, url, "--origin", "https://app.example.com", "--slow")
    assert (found.code, found.faults) == (0, {})
    assert found.states("cors") == found.states("buffering") == ["ok"]
    assert found.states("idle_timeout") == found.states("held_response") == ["ok"]
    (overview,) = (each for each in found.checks if each["check"] == "overview")
    assert "a key with the scope admin, or HEADRACE_REDIS_URL" in overview["detail"]
    assert f"waiting {round(2.5 * HEARTBEAT_S)} s" in found.err


async def test_the_nginx_of_the_documentation_has_no_fault(guarded: System) -> None:
    nginx = Nginx([guarded.gateways[0].port])
    try:
        await nginx.start()
        found = await examine(guarded, nginx.url, SSL_CERT_FILE=str(nginx.certificate))
        untrusted = await examine(guarded, nginx.url)
        clear = await examine(guarded, f"http://localhost:{nginx.clear_port}")
    finally:
        nginx.stop()
    assert (found.code, found.faults) == (0, {})
    assert found.states("http_2") == ["ok"]
    assert not {"forwarded", "scheme"} & {each["check"] for each in found.checks}  # the gateway trusts this proxy
    assert "the certificate is not trusted: self" in untrusted.faults["gateway"]
    assert "this server accepts https only" in clear.faults["gateway"]


async def test_buffers_of_nginx_hold_no_token_of_a_gateway_back(guarded: System, tmp_path: Path) -> None:
    """The doctor blames no directive for its name: only gzip fills these buffers first."""
    async with plain_nginx(guarded.gateways[0].port, tmp_path, f"{GOOD} {KEPT} proxy_buffering on;") as url:
        found = await examine(guarded, url)
    assert (found.code, found.faults) == (0, {})


async def test_a_read_timeout_below_the_heartbeat_is_measured(guarded: System, tmp_path: Path) -> None:
    async with plain_nginx(guarded.gateways[0].port, tmp_path, f"{GOOD} proxy_read_timeout 3s;") as url:
        found = await examine(guarded, url, "--slow")
    assert found.faults.keys() == {"idle_timeout", "held_response"}
    assert f"shorter than the heartbeat interval of {HEARTBEAT_S} s" in found.faults["idle_timeout"]
    assert found.remedy("idle_timeout") == f"proxy_read_timeout {3 * HEARTBEAT_S}s;"
    assert "HTTP 504" in found.faults["held_response"]


async def test_a_redirect_that_loses_the_post_is_named_and_followed(guarded: System, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "clear").mkdir()
    port = guarded.gateways[0].port
    async with plain_nginx(port, tmp_path / "target", GOOD) as target:
        redirect = f"return 301 {target}$request_uri;"
        async with plain_nginx(port, tmp_path / "clear", GOOD, server=redirect) as url:
            found = await examine(guarded, url)
    assert found.faults.keys() == {"redirect"}
    assert "clients repeat a POST as a GET" in found.faults["redirect"]
    assert found.states("buffering") == ["ok"]  # of the target


async def test_an_origin_that_is_not_allowed_is_the_gateways_or_the_proxys(guarded: System, tmp_path: Path) -> None:
    hidden = f"{GOOD} proxy_hide_header Access-Control-Allow-Origin;"
    async with plain_nginx(guarded.gateways[0].port, tmp_path, hidden) as url:
        own = await examine(guarded, url, "--direct", guarded.url, "--origin", "https://app.example.com")
    other = await examine(guarded, guarded.url, "--origin", "https://other.example.com")
    assert "a proxy changes it" in own.faults["cors"]
    assert "HEADRACE_CORS_ORIGINS" in other.faults["cors"]


async def relay(upstream: int, block: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, but of responses only whole blocks, and the rest at the end."""
    from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", upstream)

    async def requests() -> None:
        while piece := await reader.read(65_536):
            to_gateway.write(piece)
            await to_gateway.drain()

    asking = asyncio.create_task(requests())
    held, is_stream = b"", False
    try:
        while piece := await from_gateway.read(65_536):
            is_stream = is_stream or b"text/event-stream" in piece
            held += piece
            is_end = held.endswith(b"0\r\n\r\n")
            ready = len(held) if is_end or not is_stream else len(held) // block * block
            writer.write(held[:ready])
            await writer.drain()
            held, is_stream = held[ready:], is_stream and not is_end
    finally:
        asking.cancel()
        writer.close()
        to_gateway.close()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(("block", "words"), [(1_000_000, "at once, at the end"), (2000, "buffered in blocks")])
async def test_a_proxy_that_collects_tokens_is_recognised_by_their_arrival(
    guarded: System, block: int, words: str, direct: bool
) -> None:
    serve = partial(relay, guarded.gateways[0].port, block)
    options = ("--direct", guarded.url) if direct else ()
    async with listening(serve) as url:
        found = await examine(guarded, url, *options)
    assert found.faults.keys() == {"buffering"}, found.faults
    assert words in found.faults["buffering"]
    assert "proxy_buffering off" in found.remedy("buffering")


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "set HEADRACE_API_KEY or --key"), ("hr_wrong", "check HEADRACE_API_KEY or --key")],
)
async def test_a_key_that_is_missing_or_wrong_is_named(guarded: System, key: str, words: str) -> None:
    found = await examine(guarded, guarded.url, key=key)
    assert found.faults.keys() == {"gateway"}
    assert words in found.faults["gateway"]


async def test_addresses_without_a_gateway_are_named(guarded: System, tmp_path: Path) -> None:
    nothing = await examine(guarded, f"http://127.0.0.1:{free_port()}")
    assert "connection refused" in nothing.faults["gateway"]
    assert "--url or HEADRACE_URL" in nothing.faults["gateway"]
    async with plain_nginx(free_port(), tmp_path, GOOD) as url:
        lonely = await examine(guarded, url)
    assert "the proxy reaches no gateway" in lonely.faults["gateway"]
