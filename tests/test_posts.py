"""Requests over aiohttp alone are those of the SDKs, and so are their failures."""

import asyncio
import json
from contextlib import aclosing

import pytest

from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, collect, failure, text_in
from tests.raw_server import HEAD, answering
from tests.test_redirects import addresses

#: Providers that have an SDK.
with_sdk = pytest.mark.parametrize("name", ["openai", "anthropic", "responses"])
#: Headers that each HTTP client sets in its own way.
OWN = {"accept-encoding", "connection", "content-length", "x-stainless-read-timeout", "x-stainless-timeout"}
REPORT = {
    "error": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "no", "param": "a"}
}


@pytest.fixture
def through_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a proxy, which the SDKs' requests take, but not to this machine."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")


async def headers_and_body(fake: FakeProvider, make: Make, name: str) -> tuple[dict[str, str], object]:
    fake.play("m", Answer())
    assert text_in(await collect(make(name), ask("m", "grüße \N{GRINNING FACE}"))) == "Hello, world."
    call = fake.calls[-1]
    return {name: value for name, value in call.headers.items() if name not in OWN}, call.request


async def failures(fake: FakeProvider, make: Make, name: str) -> list[tuple[object, ...]]:
    found = list[tuple[object, ...]]()
    for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 529):
        for body in (None, REPORT):
            fake.play("m", Answer(status=status, retry_after="7", error_body=body))
            error = await failure(make(name), ask("m"))
            shown = (error.code, error.detail, error.provider_code, error.param, error.refuses_key)
            found.append((status, error.retry_after_s, *shown))
    return found


@with_sdk
async def test_a_request_has_the_headers_and_body_of_the_sdk(
    fake: FakeProvider, make: Make, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    direct = await headers_and_body(fake, make, name)
    request.getfixturevalue("through_sdk")
    assert direct == await headers_and_body(fake, make, name)


@with_sdk
async def test_a_refusal_has_the_error_of_the_sdk(
    fake: FakeProvider, make: Make, name: str, request: pytest.FixtureRequest
) -> None:
    direct = await failures(fake, make, name)
    request.getfixturevalue("through_sdk")
    assert direct == await failures(fake, make, name)


async def test_a_request_goes_through_the_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[dict[str, object]] = [{"delta": {"content": "by proxy"}}, {"delta": {}, "finish_reason": "stop"}]
    body = b"".join(b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, **part}]}).encode() for part in parts)
    async with answering(body + b"data: [DONE]\n\n", HEAD) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        provider = make("openai", OPENAI_BASE_URL="http://provider.invalid/v1")
        assert text_in(await collect(provider, ask("m"))) == "by proxy"


async def test_a_connection_that_its_server_closed_is_replaced(make: Make) -> None:
    body = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    gone = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(head + body)
        writer.write_eof()
        while await reader.read(4096):  # the rest of the request, until the client has noticed
            pass
        gone.put_nowait(b"")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        provider = make("openai", **addresses(url))
        for _ in range(3):
            async with aclosing(provider.stream(ask("m"))) as answer:
                assert [part async for part in answer]
            await gone.get()
