"""Cases of ``bench.micro``: the steps of a token through our own code, one by one, without sockets.

Each case has the input of 30 tokens/s a stream: one delta a read, one event an append, one entry an XREAD and stream.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Message

from gateway.auth.grants import Grant, LiveGrants
from gateway.dialects import native
from gateway.live.feed import Entry, Feed
from gateway.live.sse import StreamResponse
from shared.broker.client import run_scripts
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.replies import Claimed
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol import events
from shared.protocol.ids import EventId, format_event_id
from shared.settings import Settings
from workers.providers.base import TextDelta
from workers.providers.errors import Upstream
from workers.providers.framing import EventCutter
from workers.providers.http_calls import ProviderCall
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.tool_calls import ToolCalls
from workers.writing.coalescer import Coalescer
from workers.writing.writer import StreamWriter

Run = Callable[[], Awaitable[None]]

TOKENS: Final = 256  # in a run: about a millisecond of work
_EPOCH: Final = 41
_SETTINGS: Final = Settings()
_SCRIPTS: Final = StreamScripts(_SETTINGS)
_HOLDER: Final = Holder("a3" + "5e" * 16, _EPOCH, "w0011aabb.0123456789abcdef", None)
_DELTA: Final = TextDelta(" token")
_STORED: Final = [events.encode(events.Token(" token", index)) for index in range(TOKENS)]
_IDS: Final = [format_event_id(_EPOCH, 1 + index) for index in range(TOKENS)]
_CHUNK: Final = (
    b'{"id":"chatcmpl-CkQ3vW0f8sXb","object":"chat.completion.chunk","created":1795000000,"model":"gpt-some",'
    b'"service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,'
    b'"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}'
)


@dataclass(frozen=True, slots=True)
class Case:
    """One case. ``prepare`` is not measured; the run that it returns is measured once."""

    name: str
    title: str
    prepare: Callable[[], Run]


def _provider_events() -> Run:
    read = b"data: " + _CHUNK + b"\n\n"

    async def run() -> None:
        cutter = EventCutter()
        for _ in range(TOKENS):
            cutter.feed(read)

    return run


def _provider_chunks() -> Run:
    call = ProviderCall(Upstream("openai", "localhost", "", "", "openai"), "gpt-some", ())
    reader = ChatCompletionReader(call, ToolCalls("openai"))

    async def run() -> None:
        for _ in range(TOKENS):
            list(reader.take(_CHUNK))

    return run


def _coalescer(together: int) -> Callable[[], Run]:
    """Return a case with ``together`` deltas in each event."""

    def prepare() -> Run:
        coalescer = Coalescer(_SETTINGS.max_event_bytes)

        async def run() -> None:
            for _ in range(TOKENS // together):
                for _ in range(together):
                    coalescer.add([_DELTA])
                coalescer.take()

        return run

    return prepare


def _writer() -> Run:
    writer = StreamWriter(
        _HOLDER,
        Claimed(_EPOCH, 1, 0, "", {"body_hash": b"00"}),
        settings=_SETTINGS,
        scripts=_SCRIPTS,
        wake=lambda writer: None,
        on_stop=lambda: None,
    )
    writer.draft.set_model("openai", "gpt-some")

    async def run() -> None:
        for index in range(TOKENS):
            await writer.push([_DELTA])
            call = writer.next_call()
            assert call is not None
            writer.settle(call.parse([b"OK", index + 2, b"", 1, _EPOCH]))  # `start` is before the first

    return run


def _appends() -> Run:
    together = 16
    line = _Canned([[b"OK", 1, b"", 1, _EPOCH]] * together)

    async def run() -> None:
        for first in range(0, TOKENS, together):
            seqs = range(first + 1, first + 1 + together)
            await run_scripts(line, [_SCRIPTS.append(_HOLDER, seq, _STORED[seq - 1 : seq]) for seq in seqs])

    return run


class _Canned(PipelineConnection):
    """Connection that packs commands as usual, and returns the same reply to each without sending it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(_SETTINGS.redis_url)
        self._answer = answer

    async def exchange_packed(self, packed: bytes, count: int) -> list[Any]:
        return [self._answer] * count


def _feed(*, read: bool) -> Callable[[], Run]:
    """Return a case of the feed. ``read``: one reader takes the entries of each XREAD."""
    arrived: Sequence[list[Entry]] = [[(at, [b"e", stored])] for at, stored in zip(_IDS, _STORED, strict=True)]

    def prepare() -> Run:
        feed = Feed(_HOLDER.stream_id)
        feed.rewind(EventId(_EPOCH, 0))
        renderer = native.Native(_HOLDER.stream_id)

        async def run() -> None:
            cursor = EventId(_EPOCH, 0)
            for entries in arrived:
                feed.add(entries)
                if read and (part := feed.after(cursor)) is not None:
                    renderer.render(part)
                    cursor = part.last

        return run

    return prepare


def _renderer() -> Run:
    async def run() -> None:
        for at, stored in zip(_IDS, _STORED, strict=True):
            native.frame(at, stored)

    return run


def _response() -> Run:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for at, stored in zip(_IDS, _STORED, strict=True):
            yield b"id: %b\ndata: %b\n\n" % (at, stored)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        """Accept everything, as a fast socket does."""

    async def run() -> None:
        right = LiveGrants(None, None).watch(Grant("anonymous"))
        await StreamResponse(chunks(), _SETTINGS, right)({"type": "http"}, receive, send)

    return run


CASES: Final = (
    Case("provider_events", "worker: the provider's bytes into events (`EventCutter`)", _provider_events),
    Case("provider_chunks", "worker: an event into a delta (`ChatCompletionReader.take`)", _provider_chunks),
    Case("coalescer_1", "worker: a delta into an event, encoded", _coalescer(1)),
    Case("coalescer_16", "worker: the same, 16 deltas an event", _coalescer(16)),
    Case("writer", "worker: push, `next_call`, `settle` (coalescing included)", _writer),
    Case("append", "worker: an append built, packed, its reply parsed", _appends),
    Case("feed_add", "gateway: an entry into the feed (`Feed.add`)", _feed(read=False)),
    Case("feed_after", "gateway: the same, rendered, and out to one reader (`Feed.after`)", _feed(read=True)),
    Case("frame", "gateway: rendering alone (`native.frame`)", _renderer),
    Case("response", "gateway: a chunk through `StreamResponse`, to the server", _response),
)
