"""A content block of an unknown kind that never ends does not fill the memory of a worker: it ends the answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain, count
from typing import Any, Final

import pytest

from shared.errors import ProviderError
from shared.settings import Settings
from tests.provider_client import KEY, ask, parts_of, provider_named
from tests.raw_server import HEAD
from workers.providers.framing import MAX_PIECE_BYTES

PIECE: Final = "x" * 60_000
START: Final = {"type": "message_start", "message": {"usage": {"input_tokens": 1}}}


def started(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": "future_block", **block}}


def one_block() -> Iterator[dict[str, Any]]:
    """Yield a block with an endless input."""
    yield started(0)
    while True:
        yield {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": PIECE},
        }


def one_block_of_unknown_deltas() -> Iterator[dict[str, Any]]:
    yield started(0)
    while True:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "future_delta", "value": PIECE}}


def many_blocks() -> Iterator[dict[str, Any]]:
    """Yield blocks none of which ends."""
    for index in count():
        yield started(index, value=PIECE)


@asynccontextmanager
async def serving(events: Callable[[], Iterator[dict[str, Any]]]) -> AsyncIterator[tuple[str, list[int]]]:
    """Yield the URL of a server that sends the events until its client leaves, and the bytes that it sent."""
    sent: list[int] = []
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(HEAD)
        size = 0
        try:
            for event in chain([START], events()):
                frame = b"data: %b\n\n" % json.dumps(event).encode()
                writer.write(frame)
                size += len(frame)
                await writer.drain()
        except OSError:
            pass
        finally:
            sent.append(size)
            left.set()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
        await asyncio.wait_for(left.wait(), 30)  # the worker closes the connection, or the server would not end


@pytest.mark.parametrize("events", [one_block, one_block_of_unknown_deltas, many_blocks])
async def test_an_endless_block_ends_the_answer(events: Callable[[], Iterator[dict[str, Any]]]) -> None:
    async with serving(events) as (url, sent):
        settings = Settings.model_validate({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url})
        provider = provider_named("anthropic", settings)
        try:
            with pytest.raises(ProviderError) as caught:
                await parts_of(provider, ask("m"))
        finally:
            await provider.aclose()
    assert caught.value.code == "provider_protocol"
    assert "content blocks of more than 8 MiB" in caught.value.detail
    assert "ValueError" not in caught.value.detail
    assert MAX_PIECE_BYTES < sent[0] < 3 * MAX_PIECE_BYTES  # the rest is in the buffers of both sockets
