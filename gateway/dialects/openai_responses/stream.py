"""OpenAI's Responses: items that are added, grow and are done. Sequence numbers are equal in every replay."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gateway.dialects.append_only import STREAM_RESET
from gateway.dialects.replay_filter import ReplayFilter
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Reasoning, Refusal, Token, ToolCall, Usage

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """Attributes of a response other than its answer. ``created_at``: Unix seconds."""

    stream_id: str
    model: str
    created_at: int
    background: bool = False
    previous_response_id: str | None = None
    metadata: Body = field(default_factory=dict)


class Response:
    """Response object under construction. ``output``: the items in order."""

    def __init__(self, info: ResponseInfo) -> None:
        self.info = info
        self.status = "queued"
        self.output: list[Body] = []
        self.error: Body | None = None
        self.incomplete: Body | None = None
        self.usage: Body | None = None

    @property
    def body(self) -> Body:
        info = self.info
        return {
            "id": f"resp_{info.stream_id}",
            "object": "response",
            "created_at": info.created_at,
            "status": self.status,
            "background": info.background,
            "previous_response_id": info.previous_response_id,
            "error": self.error,
            "incomplete_details": self.incomplete,
            "model": info.model,
            "output": self.output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": info.metadata,
            "usage": self.usage,
        }


class _Growing:
    """Item that still receives text. :meth:`join` stores the text at ``member`` of ``holder``."""

    def __init__(self, item: Body, holder: Body, member: str) -> None:
        self.item = item
        self._holder = holder
        self._member = member
        self._pieces: list[str] = []  # joined rarely: adding each piece to a string would copy the string each time

    def grow(self, text: str) -> None:
        self._pieces.append(text)

    def join(self) -> str:
        """Store and return the text so far."""
        whole = self._holder[self._member] = "".join(self._pieces)
        self._pieces = [whole]
        return whole


class ResponseEvents:
    """Renderer of a streamed response.

    ``after``: the last sequence number that the client has received. Rendering always begins at the start, since a
    number depends on the events before it; frames up to ``after`` are dropped. ``failure``: the error by which the
    response failed.
    """

    resumable = True

    def __init__(self, info: ResponseInfo, *, after: int = -1) -> None:
        self.failure: Error | None = None
        self.is_over = False
        self._response = Response(info)
        self._after = after
        self._next = 0
        self._filter = ReplayFilter()
        self._open: _Growing | None = None  # text or reasoning
        self._calls: dict[int, _Growing] = {}
        self._has_begun = False
        self._has_refused = False

    @property
    def response(self) -> Response:
        """Response object with everything rendered so far."""
        for growing in (*self._calls.values(), *([self._open] if self._open else ())):
            growing.join()
        return self._response

    def queued(self, queue_position: int) -> bytes:
        return b"".join(self._created())

    def render(self, batch: Batch) -> bytes:
        return b"".join([*self._created(), *self._rendered(batch)])

    # --- generators of frames

    def _created(self) -> Iterator[bytes]:
        """Yield the first frames. The SDK's helpers require them before any other, so they go out before a worker
        begins."""
        if not self._has_begun:
            self._has_begun = True
            yield self._frame("response.created", response=self._response.body)
            self._response.status = "in_progress"
            yield self._frame("response.in_progress", response=self._response.body)

    def _rendered(self, batch: Batch) -> Iterator[bytes]:
        new = self._filter.take(batch)
        if new is None:
            yield from self._fail(STREAM_RESET)
            return
        for stored in new:
            if not self.is_over:
                yield from self._event(events.decode(stored))

    def _event(self, event: Event) -> Iterator[bytes]:
        match event:
            case Token():
                yield from self._text("output_text", "text", event.token)
            case Refusal():
                self._has_refused = True
                yield from self._text("refusal", "refusal", event.text)
            case Reasoning():
                yield from self._reasoning(event.text)
            case ToolCall():
                yield from self._call(event)
            case Error():
                yield from self._fail(event)
            case Done():
                yield from self._end(event)

    def _text(self, kind: str, member: str, text: str) -> Generator[bytes, None, None]:
        """Yield a text delta. ``kind``: type of the part that contains the text."""
        growing = self._open
        if growing is None or growing.item["type"] != "message" or growing.item["content"][0]["type"] != kind:
            yield from self._close()
            part: Body = {"type": kind, member: ""}
            if kind == "output_text":
                part |= {"annotations": [], "logprobs": []}
            item = yield from self._add("message", "msg", role="assistant", content=[])
            item["content"].append(part)
            growing = self._open = _Growing(item, part, member)
            yield self._frame("response.content_part.added", **self._location(item), content_index=0, part=part)
        growing.grow(text)
        location = self._location(growing.item)
        yield self._frame(f"response.{kind}.delta", **location, content_index=0, delta=text, **_logprobs(kind))

    def _reasoning(self, text: str) -> Iterator[bytes]:
        growing = self._open
        if growing is None or growing.item["type"] != "reasoning":
            yield from self._close()
            part = {"type": "summary_text", "text": ""}
            item = yield from self._add("reasoning", "rs", summary=[])
            item["summary"].append(part)
            growing = self._open = _Growing(item, part, "text")
            yield self._frame(
                "response.reasoning_summary_part.added", **self._location(item), summary_index=0, part=part
            )
        growing.grow(text)
        location = self._location(growing.item)
        yield self._frame("response.reasoning_summary_text.delta", **location, summary_index=0, delta=text)

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        if call.complete:
            if (growing := self._calls.pop(call.index, None)) is not None:
                item, whole = growing.item, growing.join()
                location = self._location(item)
                yield self._frame(
                    "response.function_call_arguments.done", **location, arguments=whole, name=item["name"]
                )
                yield self._done(item)
            return
        if call.index not in self._calls:
            yield from self._close()
            item = yield from self._add("function_call", "fc", call_id=call.id, name=call.name, arguments="")
            self._calls[call.index] = _Growing(item, item, "arguments")
        growing = self._calls[call.index]
        growing.grow(call.arguments)
        location = self._location(growing.item)
        yield self._frame("response.function_call_arguments.delta", **location, delta=call.arguments)

    def _close(self) -> Iterator[bytes]:
        """Finish the growing item: another one begins, or the answer ends."""
        growing, self._open = self._open, None
        if growing is None:
            return
        item, text = growing.item, growing.join()
        location = self._location(item)
        if item["type"] == "reasoning":
            part = item["summary"][0]
            yield self._frame("response.reasoning_summary_text.done", **location, summary_index=0, text=text)
            yield self._frame("response.reasoning_summary_part.done", **location, summary_index=0, part=part)
        else:
            part = item["content"][0]
            kind, member = part["type"], "text" if part["type"] == "output_text" else "refusal"
            whole = {member: text, **_logprobs(kind)}
            yield self._frame(f"response.{kind}.done", **location, content_index=0, **whole)
            yield self._frame("response.content_part.done", **location, content_index=0, part=part)
        yield self._done(item)

    def _fail(self, error: Error) -> Iterator[bytes]:
        self.is_over = True
        self.failure = error
        yield from self._close()
        self._response.status = "failed"
        self._response.error = {"code": error.provider_code or error.code, "message": error.message}
        yield self._frame("response.failed", response=self._response.body)

    def _end(self, done: Done) -> Iterator[bytes]:
        self.is_over = True
        yield from self._close()
        self._response.usage = _usage(done.usage) if done.usage else None
        if done.finish_reason == "cancelled":
            self._response.status = "cancelled"
            yield self._frame("response.incomplete", response=self._response.body)
        elif reason := self._incomplete_reason(done):
            self._response.status = "incomplete"
            self._response.incomplete = {"reason": reason}
            yield self._frame("response.incomplete", response=self._response.body)
        else:
            self._response.status = "completed"
            yield self._frame("response.completed", response=self._response.body)

    # --- internal

    def _incomplete_reason(self, done: Done) -> str | None:
        """Return None for a complete answer. A refusal with text is complete."""
        if self._has_refused and done.finish_reason == "content_filter":
            return None
        return _INCOMPLETE.get(done.finish_reason)

    def _add(self, kind: str, prefix: str, **members: Any) -> Generator[bytes, None, Body]:
        index = len(self._response.output)
        item: Body = {"id": f"{prefix}_{self._response.info.stream_id}_{index}", "type": kind}
        item |= {"status": "in_progress", **members}
        self._response.output.append(item)
        yield self._frame("response.output_item.added", output_index=index, item=item)
        return item

    def _done(self, item: Body) -> bytes:
        item["status"] = "completed"
        return self._frame("response.output_item.done", output_index=self._response.output.index(item), item=item)

    def _location(self, item: Body) -> Body:
        return {"item_id": item["id"], "output_index": self._response.output.index(item)}

    def _frame(self, kind: str, **members: Any) -> bytes:
        number = self._next
        self._next += 1
        if number <= self._after:
            return b""
        body = {"type": kind, "sequence_number": number, **members}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(body))


def _logprobs(kind: str) -> Body:
    return {"logprobs": []} if kind == "output_text" else {}


def _usage(usage: Usage) -> Body:
    """Return the usage. The SDKs' types require all details: those that were not counted are 0."""
    details = {"cached_tokens": usage.cached_tokens or 0, "cache_write_tokens": usage.cache_write_tokens or 0}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
