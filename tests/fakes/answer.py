"""The configured behaviour of the fake provider, and its record of each call."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: finish: properly. truncate: a clean end of the body without the format's end marker. reset: RST in mid-stream.
#: Data that the client has not read by then may be lost: if that matters, use ``gate``.
#: refuse: RST before any byte. error_in_band: an error inside the stream. hang: silence until the client disconnects.
#: ping: only comments or pings, until the client disconnects.
End = Literal["finish", "truncate", "reset", "refuse", "error_in_band", "hang", "ping"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Storage of an answer by a Responses server. Each switch is one fault or peculiarity of such servers."""

    #: The server ignores ``background``: the answer ends with its connection.
    ignored: bool = False
    #: Connections that break: the first one (of the POST) after so many events, then those of the GETs in turn.
    #: Later connections are whole.
    cuts: Sequence[int] = ()
    #: End of a connection that breaks: RST, or a clean end of the body. After RST, data may be lost that the client
    #: has not read.
    cut_by: Literal["truncate", "reset"] = "truncate"
    #: Events have numbers.
    has_numbers: bool = True
    #: HTTP status of every GET of a stream, instead of the events.
    status: int | None = None
    #: HTTP status of every cancel, instead of cancelling.
    cancel_status: int | None = None
    #: Numbers of events that no GET returns.
    lost: Sequence[int] = ()
    #: A GET returns all events, whatever it has in ``starting_after``.
    ignores_cursor: bool = False
    #: A GET with ``starting_after`` returns the response as one JSON object.
    is_json: bool = False
    #: After so many events the first connection sends a keep-alive message with a number of its own, which the stored
    #: events do not have.
    keepalive_after: int | None = None
    #: Every request gets the response as it is at that time, as one JSON object.
    never_streams: bool = False
    #: Member ``id`` of the response in all events of GETs, instead of its own.
    other_id: str | None = None

    def sends_whole(self, is_continuation: bool) -> bool:
        """Return True for a GET of a stream that gets the whole response instead."""
        return self.never_streams or (self.is_json and is_continuation)


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts that a provider reports; None: left out. ``input`` includes ``cached`` and ``cache_write``, and
    ``output`` includes ``reasoning``; each wire reports them in its own way, if it has a field for them."""

    input: int | None
    output: int | None
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """``fragments`` join to the text of the arguments. Ollama sends whole calls and ignores the id."""

    id: str
    name: str
    fragments: tuple[str, ...] = ("{}",)


class Turnstile:
    """Lets each call send a number of deltas and no more, until the test allows more."""

    def __init__(self) -> None:
        self._allowed = 0
        self._risen = asyncio.Condition()

    async def allow(self, count: int) -> None:
        """Allow the first ``count`` deltas of each call."""
        async with self._risen:
            self._allowed = max(self._allowed, count)
            self._risen.notify_all()

    async def passed(self, number: int) -> None:
        """Wait until the delta of this number, from 1, may be sent. The server calls it."""
        async with self._risen:
            await self._risen.wait_for(lambda: self._allowed >= number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Behaviour of one model. ``deltas`` are taken one by one, so an endless iterator needs no memory."""

    #: A callable gets the call's number, so that every call's text can carry it.
    deltas: Sequence[str] | Callable[[int], Iterable[str]] = ("Hello", ", ", "world", ".")
    reasoning: Sequence[str] = ()
    #: Sent after the deltas. For Anthropic it is part of the text.
    refusal: Sequence[str] = ()
    #: Sent after the refusal. OpenAI's come interleaved: a fragment of each in turn.
    tools: Sequence[ToolCall] = ()
    #: Time between deltas, as a rate: after a stall the late ones come at once. 0: as fast as the socket takes.
    delay_s: float = 0.0
    #: Time before the first byte of the response.
    first_delay_s: float = 0.0
    #: Waited for once ``gate_after`` deltas are out; with 0, after the headers.
    gate: asyncio.Event | None = None
    gate_after: int = 0
    #: Passed before each delta.
    turnstile: Turnstile | None = None
    #: A canonical reason or one of the wire format; None: tool_calls if there are some, else stop.
    finish_reason: FinishReason | str | None = None
    #: (in, out). "counted": words of the prompt, deltas sent. None: not reported.
    usage: tuple[int, int] | Counts | Literal["counted"] | None = "counted"
    end: End = "finish"
    #: An HTTP error instead of an answer.
    status: int | None = None
    #: Sent with it.
    retry_after: str | None = None
    #: Its body, instead of one that quotes the prompt and the key.
    error_body: dict[str, Any] | None = None
    #: ``type`` of an error in the stream; None for the provider's type for overload.
    error_type: str | None = None
    #: Sent instead of the answer, with HTTP 200: bytes that no provider sends.
    raw: bytes | None = None
    #: Sent instead of the answer, each as a TCP segment and an HTTP chunk of its own, so long apart. They may come
    #: with an error ``status``.
    segments: Sequence[bytes] | None = None
    segment_delay_s: float = 0.0
    #: Of ``segments``; None for that of the wire format.
    content_type: str | None = None
    #: The connection stays open after ``segments``, until the client disconnects.
    keeps_open: bool = False
    #: Cut the body into pieces of so many bytes, each a TCP segment and an HTTP chunk of its own; with a seed, at
    #: random places, which also joins frames.
    frame_bytes: int | None = None
    cut_seed: int | None = None
    #: CRLF line ends instead of LF.
    crlf: bool = False
    #: SSE comments, and other insertions that the format allows. Ollama's allows none.
    comments: bool = False
    #: Data of a later version of the API: unknown events, and unknown members of known ones.
    unknown: bool = False
    #: Behaviour of a Responses server whose request has ``background: true``.
    storage: Storage = Storage()

    @property
    def is_storable(self) -> bool:
        is_error = self.status is not None or self.end == "refuse"
        return not (is_error or self.storage.ignored or self.raw is not None or self.segments is not None)

    @property
    def ends_with(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tools else "stop")


@dataclass(slots=True, eq=False)
class Call:
    """One request as the provider received it. All fields are kept up to date while the answer runs."""

    number: int
    provider: str
    model: str
    request: dict[str, Any]
    headers: dict[str, str]
    sent_deltas: int = 0
    #: Bytes of the body handed to the socket.
    sent_bytes: int = 0
    #: The whole answer was handed to the socket.
    finished: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    #: The client went before the answer was complete.
    closed_by_client: bool = False
    #: ``time.monotonic()`` since when the socket takes no more; None while it does.
    stalled_since: float | None = None
    _stalled: asyncio.Event = field(default_factory=asyncio.Event)
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _awaited: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._flowing.set()

    @property
    def stalled_s(self) -> float:
        """Seconds for which the socket has accepted nothing, up to now."""
        return 0.0 if self.stalled_since is None else time.monotonic() - self.stalled_since

    @property
    def prompt(self) -> str:
        """Return the last user message."""
        prompts = [m.get("content") for m in self.messages if m.get("role") == "user"]
        return str(prompts[-1]) if prompts else ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The request's messages, or its items."""
        given = self.request.get("messages", self.request.get("input", []))
        return given if isinstance(given, list) else [{"role": "user", "content": given}]

    async def wait_deltas(self, count: int, *, timeout_s: float = 60) -> None:
        """Wait until ``count`` deltas were handed to the socket."""
        if self.sent_deltas < count:
            reached = asyncio.Event()
            self._awaited.append((count, reached))
            await asyncio.wait_for(reached.wait(), timeout_s)

    async def wait_stalled(self, for_s: float, *, timeout_s: float = 60) -> None:
        """Wait until the socket has accepted nothing for ``for_s``."""
        async with asyncio.timeout(timeout_s):
            while True:
                await self._stalled.wait()
                try:
                    await asyncio.wait_for(self._flowing.wait(), for_s)
                except TimeoutError:
                    return

    async def wait_closed(self, *, timeout_s: float = 60) -> None:
        await asyncio.wait_for(self.closed.wait(), timeout_s)

    # --- for the server

    async def flowing(self) -> None:
        await self._flowing.wait()

    def stall(self) -> None:
        self.stalled_since = time.monotonic()
        self._flowing.clear()
        self._stalled.set()

    def flow(self) -> None:
        self.stalled_since = None
        self._stalled.clear()
        self._flowing.set()

    def count_delta(self) -> None:
        self.sent_deltas += 1
        if self._awaited:
            for _, reached in [a for a in self._awaited if a[0] <= self.sent_deltas]:
                reached.set()
            self._awaited = [a for a in self._awaited if a[0] > self.sent_deltas]

    def close(self, *, by_client: bool) -> None:
        if not self.closed.is_set():
            self.flow()
            self.closed_by_client = by_client
            self.closed.set()
