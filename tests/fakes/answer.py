"""What the fake provider is to answer, and what it saw while answering."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: finish: properly. truncate: a clean end of the body without the format's end marker. reset: RST in mid-stream.
#: What the client has not read by then may be lost with it: where that matters, use ``gate``.
#: refuse: RST before any byte. error_in_band: an error inside the stream. hang: silence until the client goes.
#: ping: only what keeps a connection open, until the client goes.
End = Literal["finish", "truncate", "reset", "refuse", "error_in_band", "hang", "ping"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """``fragments`` join to the text of the arguments. Ollama, whose calls come whole, has no use for the id."""

    id: str
    name: str
    fragments: tuple[str, ...] = ("{}",)


class Turnstile:
    """Lets every call that it stands before send so many deltas and no more, until the test lets through others."""

    def __init__(self) -> None:
        self._allowed = 0
        self._risen = asyncio.Condition()

    async def allow(self, count: int) -> None:
        """The first ``count`` of each call's deltas."""
        async with self._risen:
            self._allowed = max(self._allowed, count)
            self._risen.notify_all()

    async def passed(self, number: int) -> None:
        """For the server: until the delta of that number, from 1, may be sent."""
        async with self._risen:
            await self._risen.wait_for(lambda: self._allowed >= number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one model behaves. ``deltas`` are taken one by one, so an endless iterator needs no memory."""

    #: A callable gets the call's number, so that every call's text can carry it.
    deltas: Sequence[str] | Callable[[int], Iterable[str]] = ("Hello", ", ", "world", ".")
    reasoning: Sequence[str] = ()
    #: After the deltas. Anthropic has no other words for it than the text.
    refusal: Sequence[str] = ()
    #: After that. OpenAI's come interleaved: a fragment of each in turn.
    tools: Sequence[ToolCall] = ()
    #: Between deltas, as a rate: after a stall the late ones come at once. 0: as fast as the socket takes.
    delay_s: float = 0.0
    #: Before the first byte of the response.
    first_delay_s: float = 0.0
    #: Waited for once ``gate_after`` deltas are out; with 0, after the headers.
    gate: asyncio.Event | None = None
    gate_after: int = 0
    #: Passed before each delta.
    turnstile: Turnstile | None = None
    #: One of the canonical reasons, or a word of the wire format itself; None: tool_calls after such, else stop.
    finish_reason: FinishReason | str | None = None
    #: (in, out). "counted": words of the prompt, deltas sent. None: the provider does not say.
    usage: tuple[int, int] | Literal["counted"] | None = "counted"
    end: End = "finish"
    #: An HTTP error instead of an answer.
    status: int | None = None
    #: Sent with it.
    retry_after: str | None = None
    #: Its body, instead of one that quotes the prompt and the key.
    error_body: dict[str, Any] | None = None
    #: ``type`` of an error in the stream; None for what means that the provider is overloaded.
    error_type: str | None = None
    #: In place of the answer, with HTTP 200: no provider's words.
    raw: bytes | None = None
    #: Cut the body into pieces of so many bytes, each a TCP segment and an HTTP chunk of its own; with a seed, at
    #: random places, also joining what would be apart.
    frame_bytes: int | None = None
    cut_seed: int | None = None
    #: CRLF line ends in place of LF.
    crlf: bool = False
    #: SSE comments, and whatever else the format allows in between. Ollama's has nothing of the kind.
    comments: bool = False
    #: What a later version of the API may send: unknown events, and unknown members of known ones.
    unknown: bool = False

    @property
    def ends_with(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tools else "stop")


@dataclass(slots=True, eq=False)
class Call:
    """One request as the provider saw it. Everything here is kept up to date while the answer runs."""

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
        """How long the socket has taken nothing, up to now."""
        return 0.0 if self.stalled_since is None else time.monotonic() - self.stalled_since

    @property
    def prompt(self) -> str:
        """The last user message."""
        said = [m["content"] for m in self.request.get("messages", []) if m.get("role") == "user"]
        return str(said[-1]) if said else ""

    async def wait_deltas(self, count: int, *, timeout_s: float = 10) -> None:
        """Until ``count`` deltas were handed to the socket."""
        if self.sent_deltas < count:
            reached = asyncio.Event()
            self._awaited.append((count, reached))
            await asyncio.wait_for(reached.wait(), timeout_s)

    async def wait_stalled(self, for_s: float, *, timeout_s: float = 10) -> None:
        """Until the socket has taken nothing for ``for_s``."""
        async with asyncio.timeout(timeout_s):
            while True:
                await self._stalled.wait()
                try:
                    await asyncio.wait_for(self._flowing.wait(), for_s)
                except TimeoutError:
                    return

    async def wait_closed(self, *, timeout_s: float = 10) -> None:
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
