"""AG-UI: events of a run. An answer is one assistant message with its tool calls; reasoning has messages of its own.

Every frame of the log has an ``id:`` (:mod:`gateway.dialects.ag_ui.cursor`), and a client that resumes gets the
frames after it. A client that joins gets the messages of the request as a snapshot, and then the whole answer. The
same snapshot takes an answer back that is restarted; the messages of the next answer have other ids.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from gateway.dialects.ag_ui.cursor import READY, STARTED, Cursor, Shown
from gateway.dialects.ag_ui.endings import run_usage, usage_members
from gateway.dialects.ag_ui.frames import Run, closing, custom, failure, frame, snapshot, synthetic
from gateway.dialects.append_only import CANCELLED
from gateway.dialects.citations import pages_of
from gateway.dialects.reasoning import Packed, ReasoningCollector, pack
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Extra, Reasoning, Refusal, Start, Token, ToolCall
from shared.protocol.ids import EventId, parse_event_id
from shared.protocol.waiting import Waiting

#: Version of the protocol in which these events are.
PROTOCOL_VERSION: Final = "1.0"
#: Events that open and close nothing.
_DELTAS: Final = frozenset({"TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS"})
Body = dict[str, Any]


class AgUiEvents:
    """Renderer of a run.

    ``after``: cursor of a client that resumes; None for all frames. ``is_stale``, set before the first event: the log
    does not have its frame. ``joins``: the client may not have the messages of the request. ``repeats_end``: the
    ending is sent even if the client has it. Rendering always begins at the start of the log; frames up to ``after``
    are dropped.
    """

    def __init__(
        self,
        run: Run,
        *,
        after: Cursor | None = None,
        joins: bool = False,
        resumable: bool = False,
        repeats_end: bool = False,
    ) -> None:
        self.resumable = resumable
        self._run = run
        self._after = after
        self.is_stale = False
        self._has_snapshot = joins and run.has_messages
        self._repeats_end = repeats_end
        self._has_begun = False
        self._is_over = False
        #: The event that is rendered, and the number of its frames so far. None: no log has the event.
        self._at: EventId | None = None
        self._frames = 0
        self._forget_answer()

    def begin(self) -> bytes:
        """Return the frames before the first event, unless they were returned before."""
        return b"".join(self._begin())

    def queued(self, queue_position: int) -> bytes:
        return b"".join([*self._begin(), custom("queued", {"position": queue_position or None})])

    def waiting(self, waiting: Waiting) -> bytes:
        return b"".join([*self._begin(), custom("waiting", asdict(waiting))])

    def render(self, batch: Batch) -> bytes:
        return b"".join([*self._begin(batch), *self._taken_back(batch), *self._rendered(batch)])

    # --- before the answer, and between two of them

    def _begin(self, batch: Batch | None = None) -> Iterator[bytes]:
        if self._has_begun:
            return
        self._has_begun = True
        if self._after is None:
            members = {**self._ids, "protocolVersion": PROTOCOL_VERSION}
            yield frame(str(STARTED if self._has_snapshot else READY), "RUN_STARTED", members)
        if self._has_snapshot and self._after in (None, STARTED):
            yield snapshot(READY, self._first_reasoning_in(batch))

    def _first_reasoning_in(self, batch: Batch | None) -> str | None:
        """Return the id of the first reasoning message. A client that joins again may have a part of it."""
        if batch is None or not any(stored.startswith(b"reasoning ") for _, stored in batch.events):
            return None
        return self._first_reasoning(parse_event_id(batch.events[0][0].decode()).epoch)

    def _first_reasoning(self, base: int) -> str:
        return f"{self._run.message_id(base)}/r1"

    def _taken_back(self, batch: Batch) -> Iterator[bytes]:
        """Take back what the client shows, if it is of an answer that counts no more."""
        if not batch.events or not batch.events[0][0]:
            return
        first, after = parse_event_id(batch.events[0][0].decode()), self._after
        if not (batch.reset or self.is_stale or _is_of_earlier_epoch(after, first)):
            return
        had = Cursor(self._at or first, self._frames, shown=self._shown) if after is None else after
        self._after, self.is_stale = None, False
        self._forget_answer()
        if had.shown is not None:
            yield from closing(self._run, had)
            emptied = self._first_reasoning(first.epoch) if had.shown.has_reasoned else None
            yield snapshot(Cursor(EventId(first.epoch, 0), 1), emptied)

    def _forget_answer(self) -> None:
        self._base = 0
        self._shown: Shown | None = None
        self._tail = ""  # text of ``shown``
        self._reasonings = 0
        self._calls: dict[int, str] = {}  # ids of the open calls by index
        self._collector = ReasoningCollector()
        self._pages: list[Body] = []
        self._start: Start | None = None
        self._error: Error | None = None

    # --- generators of frames

    def _rendered(self, batch: Batch) -> Iterator[bytes]:
        for at, stored in batch.events:
            if self._is_over:
                return
            self._at = parse_event_id(at.decode()) if at else None
            self._frames = 0
            if self._at is not None and self._at.seq == 1:
                self._base = self._at.epoch
            yield from self._event(events.decode(stored))

    def _event(self, event: Event) -> Iterator[bytes]:
        packed = self._collector.take(event)
        if packed is not None:
            yield from self._encrypted(packed)
        match event:
            case Token(token=text) | Refusal(text=text):
                yield from self._text(text)
            case Reasoning():
                yield from self._reasoning(event.text)
            case ToolCall():
                yield from self._call(event)
            case Extra():
                yield from self._cite(event)
            case events.Continued():
                yield self._custom("continued", {"provider": event.provider, "model": event.model})
            case Start():
                self._start = event
            case Error():
                self._error = event  # `done` follows
            case Done():
                yield from self._end(event)

    def _text(self, text: str) -> Iterator[bytes]:
        if not text:
            return
        if self._part != "t":
            yield from self._close()
            yield self._emit("TEXT_MESSAGE_START", {"messageId": self._message_id, "role": "assistant"}, part="t")
        yield self._emit("TEXT_MESSAGE_CONTENT", {"messageId": self._message_id, "delta": text})

    def _reasoning(self, text: str) -> Iterator[bytes]:
        yield from self._open_reasoning()
        if text:
            yield self._emit("REASONING_MESSAGE_CONTENT", {"messageId": self._reasoning_id, "delta": text})

    def _open_reasoning(self) -> Iterator[bytes]:
        if self._part.startswith("r"):
            return
        yield from self._close()
        self._reasonings += 1
        number, members = self._reasonings, {"messageId": self._reasoning_id}
        yield self._emit("REASONING_START", members, part=f"s{number}")
        yield self._emit("REASONING_MESSAGE_START", {**members, "role": "reasoning"}, part=f"r{number}")

    def _encrypted(self, packed: Packed) -> Iterator[bytes]:
        """Keep reasoning that its provider wants back with the message that ends. Reasoning without a text gets an
        empty message."""
        yield from self._open_reasoning()
        value = {"subtype": "message", "entityId": self._reasoning_id, "encryptedValue": pack(*packed)}
        yield self._emit("REASONING_ENCRYPTED_VALUE", value)
        yield from self._close()

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        if call.complete:
            if (call_id := self._calls.pop(call.index, None)) is not None:
                yield self._emit("TOOL_CALL_END", {"toolCallId": call_id})
            return
        if call.index not in self._calls:
            yield from self._close()
            call_id = self._calls[call.index] = str(call.id)
            named = {"toolCallId": call_id, "toolCallName": call.name, "parentMessageId": self._message_id}
            yield self._emit("TOOL_CALL_START", named)
        if call.arguments:
            yield self._emit("TOOL_CALL_ARGS", {"toolCallId": self._calls[call.index], "delta": call.arguments})

    def _cite(self, extra: Extra) -> Iterator[bytes]:
        for page in pages_of(extra):
            if page not in self._pages:
                self._pages.append(page)
                yield self._custom("source", page)

    def _close(self) -> Iterator[bytes]:
        """Close the open text or reasoning."""
        part, of_reasoning = self._part, {"messageId": self._reasoning_id}
        if part == "t":
            yield self._emit("TEXT_MESSAGE_END", {"messageId": self._message_id}, part="")
        elif part:
            yield self._emit("REASONING_MESSAGE_END", of_reasoning, part=f"s{part[1:]}")
            yield self._emit("REASONING_END", of_reasoning, part="")

    def _end(self, done: Done) -> Iterator[bytes]:
        yield from self._close()
        for index in list(self._calls):
            yield self._emit("TOOL_CALL_END", {"toolCallId": self._calls.pop(index)})
        if done.usage is not None:
            yield self._custom("usage", usage_members(done))
        self._is_over = True
        usage = run_usage(done, self._start)
        error = self._error or (CANCELLED if done.finish_reason == "cancelled" else None)
        if error is not None:
            yield self._emit("RUN_ERROR", failure(error) | usage, is_end=True)
            return
        outcome = {"result": {"finishReason": done.finish_reason}, "outcome": {"type": "success"}}
        yield self._emit("RUN_FINISHED", self._ids | outcome | usage, is_end=True)

    # --- internal

    @property
    def _ids(self) -> Body:
        return {"threadId": self._run.thread_id, "runId": self._run.run_id}

    @property
    def _part(self) -> str:
        return self._shown.part if self._shown is not None else ""

    @property
    def _message_id(self) -> str:
        return self._run.message_id(self._base)

    @property
    def _reasoning_id(self) -> str:
        return f"{self._message_id}/r{self._reasonings}"

    def _custom(self, name: str, value: Body) -> bytes:
        return self._emit("CUSTOM", {"name": name, "value": value})

    def _emit(self, kind: str, members: Body, *, part: str | None = None, is_end: bool = False) -> bytes:
        """Return a frame, or nothing if the client has it. ``part``: the open part after it, if that changes."""
        self._frames += 1
        if kind not in _DELTAS:
            self._note(part)
        if self._at is None:
            return synthetic(kind, members)
        if self._is_received(self._at, is_end=is_end):
            return b""
        number = "end" if is_end else self._frames
        return frame(f"{self._at.epoch}-{self._at.seq}.{number}{self._tail}", kind, members)

    def _note(self, part: str | None) -> None:
        """Note what the client shows after the next frame."""
        shown = self._shown or Shown(self._base)
        part = shown.part if part is None else part
        has_reasoned = shown.has_reasoned or part.startswith("r")
        self._shown = Shown(self._base, has_reasoned, part, tuple(self._calls.values()))
        self._tail = str(self._shown)

    def _is_received(self, at: EventId, *, is_end: bool) -> bool:
        after = self._after
        if after is None or at.seq > after.at.seq:
            self._after = None
            return False
        if at.seq < after.at.seq:
            return True
        if is_end:
            return after.is_end and not self._repeats_end
        return after.is_end or self._frames <= after.frame


def _is_of_earlier_epoch(after: Cursor | None, first: EventId) -> bool:
    """Return True if the event at the place of ``after``, or one before it, is of a later epoch."""
    return after is not None and first.seq <= after.at.seq and first.epoch > after.at.epoch
