"""Deltas reach an open sink without a task in between; nothing is lost, doubled or reordered at the changes."""

import asyncio
import gzip
import json
from contextlib import aclosing

import pytest

from shared.errors import ProviderError
from tests.fakes import Answer, FakeProvider
from tests.fakes.answer import Turnstile
from tests.provider_client import Make, ask, network, text_in
from tests.raw_server import HEAD, answering
from workers.providers.base import Delta, Finished, Provider

WORDS = [f"{n} " for n in range(200)]
TEXT = "".join(WORDS)


class ListSink:
    """Keeps what it takes. It closes after ``most`` reads, and whenever the test says so."""

    def __init__(self, into: list[Delta], most: int = 1_000_000) -> None:
        self.is_open = False
        self.taken = 0
        self.most = most
        self._into = into

    def take(self, deltas: list[Delta]) -> None:
        assert self.is_open
        self._into += deltas
        self.taken += 1
        self.is_open = self.taken % self.most != 0


async def read(provider: Provider, turnstile: Turnstile, deltas: list[Delta], most: int = 1_000_000) -> ListSink:
    """Read a whole answer into ``deltas``. The sink closes after ``most`` reads, until others were yielded."""
    sink = ListSink(deltas, most)
    async with aclosing(provider.stream(ask("m"), None, sink)) as answer:
        async for part in answer:
            if isinstance(part, list):
                deltas += part
                sink.is_open = True
                await turnstile.allow(len(WORDS))
            elif isinstance(part, Finished):
                assert part.reason == "stop"
    return sink


@network
@pytest.mark.parametrize("most", [1_000_000, 1, 7])
async def test_an_answer_is_whole_wherever_its_sink_opens_and_closes(
    fake: FakeProvider, make: Make, name: str, most: int
) -> None:
    provider = make(name)
    for _ in range(2):  # the second one over the first one's connection
        turnstile = Turnstile()
        await turnstile.allow(1)
        fake.play("m", Answer(deltas=WORDS, turnstile=turnstile, frame_bytes=61))
        sink = await read(provider, turnstile, deltas := list[Delta](), most)
        assert text_in(deltas) == TEXT
        assert sink.taken


@network
async def test_closing_the_answer_closes_the_connection_that_a_sink_reads(
    fake: FakeProvider, make: Make, name: str
) -> None:
    turnstile, first = Turnstile(), asyncio.Event()
    await turnstile.allow(1)
    fake.play("m", Answer(deltas=WORDS, turnstile=turnstile))
    sink = ListSink([])

    async def drained() -> None:
        async with aclosing(make(name).stream(ask("m"), None, sink)) as answer:
            async for _ in answer:
                sink.is_open = True
                first.set()

    reading = asyncio.create_task(drained())
    await first.wait()
    await turnstile.allow(100)
    while not sink.taken:
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    (call,) = fake.calls
    await call.wait_closed()
    assert call.closed_by_client


@network
@pytest.mark.parametrize(
    ("end", "code"),
    [("truncate", "upstream_truncated"), ("error_in_band", "provider_unavailable")],
)
async def test_a_failure_comes_after_all_that_the_sink_got(
    fake: FakeProvider, make: Make, name: str, end: str, code: str
) -> None:
    turnstile = Turnstile()
    await turnstile.allow(1)
    fake.play("m", Answer(deltas=WORDS, turnstile=turnstile, end=end))  # type: ignore[arg-type]
    deltas = list[Delta]()
    with pytest.raises(ProviderError) as caught:
        await read(make(name), turnstile, deltas)
    assert (caught.value.code, text_in(deltas)) == (code, TEXT)


async def test_a_compressed_body_is_read_whole(make: Make) -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
    head = HEAD.replace(b"connection:", b"content-encoding: gzip\r\nconnection:")
    async with answering(gzip.compress(events), head) as url:
        await read(make("openai", OPENAI_BASE_URL=url), Turnstile(), deltas := list[Delta]())
    assert text_in(deltas) == TEXT
