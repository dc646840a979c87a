"""Endless, compressed or broken bodies of a provider take little memory, and none after its
answer has failed."""

import asyncio
import gc
import gzip
import json
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import pytest

from shared.errors import ProviderError
from tests.fakes.answer import Answer
from tests.provider_client import Make, ask, collect, network
from tests.system import System
from tests.test_redirects import addresses
from workers.providers.base import Provider
from workers.providers.framing import MAX_PIECE_BYTES

MIB = 1024 * 1024
FILLER = b"x" * (7 * MIB)
#: Bodies below the limit of one piece that are no answer.
BROKEN = {
    "an event": b'data: {"choices":"' + FILLER + b"\n\n",
    "a body": b'{"choices":"' + FILLER,
    "lines": b"{\n" * MIB,
    "fields": b"event: x\n" + b"x\n" * MIB + b"\n",
    "an error": b'event: error\ndata: {"message":"' + FILLER + b'"}\n\n',
}


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)  # raw, as some servers send it
    return packer.compress(content) + packer.flush()


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": deflated,
}
#: Encodings that need a package or a newer Python: without it, the content is not decoded.
FOREIGN = {"br": bytes(range(256)), "zstd": bytes.fromhex("28b52ffd") + bytes(64)}


@cache
def bomb(encoding: str) -> bytes:
    """Return 128 MiB in about 128 KiB."""
    return BOMBS[encoding](b'data: {"choices":"' + bytes(128 * MIB))


@asynccontextmanager
async def sending(
    body: bytes, *, status: int = 200, encoding: str = "", kind: str = "text/event-stream"
) -> AsyncIterator[str]:
    """Yield the URL of a server that answers with ``body``."""
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    head += f"content-encoding: {encoding.removeprefix('raw ')}\r\n" if encoding else ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"content-length: *(\d+)", asked.lower()):  # what stays unread resets the connection
            await reader.readexactly(int(length[1]))
        with suppress(ConnectionError):
            writer.write(head.encode() + b"\r\n" + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def code_of(provider: Provider) -> str:
    try:
        await collect(provider, ask("m"))
    except ProviderError as error:
        return error.code
    raise AssertionError("no error")


async def code_and_memory(make: Make, name: str, body: bytes, **response: Any) -> tuple[str, int, int]:
    """Return the code of the answer's error, the most memory in use until then, and the memory in use after it.

    The collector is off: in a worker it comes late. A first answer loads the modules of the provider."""
    async with sending(b"{", **response) as url:
        await code_of(make(name, **addresses(url)))
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with sending(body, **response) as url:
            code = await code_of(make(name, **addresses(url)))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    return code, most, kept


@network
@pytest.mark.parametrize("form", BROKEN)
async def test_a_broken_answer_is_freed_at_once(make: Make, name: str, form: str) -> None:
    code, most, kept = await code_and_memory(make, name, BROKEN[form])
    assert code in {"provider_protocol", "upstream_truncated", "provider_unavailable"}
    assert kept < 4 * MIB  # modules and caches of the first request are less
    assert most < 8 * MAX_PIECE_BYTES


@network
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("encoding", BOMBS)
async def test_a_compressed_answer_is_decompressed_in_part(make: Make, name: str, encoding: str, status: int) -> None:
    code, most, kept = await code_and_memory(make, name, bomb(encoding), status=status, encoding=encoding)
    assert code == ("provider_protocol" if status == 200 else "provider_rejected")
    assert kept < 4 * MIB  # modules and caches of the first request are less
    assert most < 4 * MAX_PIECE_BYTES


@network
async def test_a_compressed_error_is_read(make: Make, name: str) -> None:
    body = gzip.compress(json.dumps({"error": {"code": "context_length_exceeded", "message": "no"}}).encode())
    async with sending(body, status=400, encoding="gzip", kind="application/json") as url:
        with pytest.raises(ProviderError) as caught:
            await collect(make(name, **addresses(url)), ask("m"))
    assert caught.value.provider_code == "context_length_exceeded"


@network
@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("encoding", [*FOREIGN, "gzip"])
async def test_an_answer_that_cannot_be_decompressed_is_an_error(
    make: Make, name: str, encoding: str, status: int
) -> None:
    async with sending(FOREIGN.get(encoding, b"no gzip at all"), status=status, encoding=encoding) as url:
        code = await code_of(make(name, **addresses(url)))
    assert code.startswith("provider_") or code == "upstream_truncated"


@network
async def test_a_list_of_models_is_bounded(make: Make, name: str) -> None:
    """Neither the body of the list nor the list may be of any size, and a name may not have control characters."""
    model = {"id": "a", "model": "a"}
    listed = json.dumps({"data": [model], "models": [model]}).encode()
    async with sending(b" " * (2 * MAX_PIECE_BYTES) + listed, kind="application/json") as url:
        assert (await make(name, **addresses(url)).list_models()).open
    names = ["good", "b\x1b]0;x\x07", "c" * 181, "", *(f"m{n}" for n in range(20_000))]
    models = [{"id": each, "model": each} for each in names]
    async with sending(json.dumps({"data": models, "models": models}).encode(), kind="application/json") as url:
        found = await make(name, **addresses(url)).list_models()
    assert found.models[:2] == ("good", "m0")
    assert len(found.models) == 10_000


async def test_the_count_of_tokens_is_a_count(make: Make) -> None:
    for value in (-5, "many", None, True, 10**30, [1]):
        async with sending(json.dumps({"input_tokens": value}).encode(), kind="application/json") as url:
            with pytest.raises(ProviderError):
                await collect(make("anthropic", **addresses(url)), ask("m", only_count=True))


async def test_a_worker_keeps_nothing_of_bad_answers(wire_system: System) -> None:
    (worker,) = wire_system.workers
    wire_system.fake.play("bad", Answer(raw=BROKEN["an event"]))

    async def fail() -> None:
        assert (await wire_system.ended(await wire_system.post("bad")))["finish_reason"] == "error"

    for _ in range(3):
        await fail()
    before = worker.rss_bytes
    for _ in range(10):
        await fail()
    assert worker.rss_bytes - before < 60 * MIB  # each kept more than 20 MiB


#: Events that a worker has to hold, since no output has come yet, or their block has not ended.
ENDLESS = {
    "openai": [b'data: {"choices":[{"index":0,"delta":{"later":"%b"}}]}\n\n' % (b"x" * MIB)] * 40,
    "anthropic": [
        b'data: {"type":"content_block_start","index":%d,"content_block":{"type":"later","x":"%b"}}\n\n'
        b'data: {"type":"content_block_delta","index":1000,"delta":{"type":"text_delta","text":"a"}}\n\n'
        % (index, b"x" * MIB)
        for index in range(40)
    ],
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_waits_for_output_is_bounded(make: Make, name: str) -> None:
    async with sending(b"".join(ENDLESS[name])) as url:
        assert await code_of(make(name, **addresses(url))) == "provider_protocol"


#: Ends of a message with members that belong to its beginning.
ODD_ENDS: tuple[dict[str, Any], ...] = (
    {"content": "x", "usage": {"output_tokens": "many", "output_tokens_details": 7, "server_tool_use": 7}},
    {"delta": {"stop_reason": "tool_use", "content": 5, "usage": "x", "id": 7, "type": 9, "role": []}},
)


@pytest.mark.parametrize("end", ODD_ENDS, ids=["event", "delta"])
async def test_an_odd_end_does_not_change_the_message(wire_system: System, end: dict[str, Any]) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    wire = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a", "citations": 5}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": 5}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}} | end,
        {"type": "message_stop"},
    ]
    wire_system.fake.play("odd-end", Answer(raw=b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in wire)))
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    body = {"model": "anthropic/odd-end", "max_tokens": 9, "tools": tools}
    body["messages"] = [{"role": "user", "content": "hi"}]
    answer = await wire_system.http.post(f"{wire_system.url}/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    message = answer.json()
    assert (message["role"], message["stop_reason"]) == ("assistant", "tool_use")
    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["content"][0]["citations"] == [5]
