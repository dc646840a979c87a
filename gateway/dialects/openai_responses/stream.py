"""OpenAI's Responses: items that are added, grow and are done. Sequence numbers are equal in every replay."""

from collections.abc import Generator, Iterator
from typing import Any, Final

import msgspec

from gateway.dialects.append_only import STREAM_RESET
from gateway.dialects.citations import Citations
from gateway.dialects.openai_chat.errors import streamed
from gateway.dialects.openai_responses.errors import failed_response
from gateway.dialects.openai_responses.growing import Growing, GrowingCall, growing_call, members_of
from gateway.dialects.openai_responses.response import Response, ResponseInfo, usage_of
from gateway.dialects.reasoning import Packed, ReasoningCollector, pack
from gateway.dialects.replay_filter import ReplayFilter
from gateway.dialects.service_tiers import openai_tier
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Extra, Reasoning, Refusal, Token, ToolCall

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
Body = dict[str, Any]


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
        self._open: Growing | None = None  # text or reasoning
        self._calls: dict[int, GrowingCall] = {}
        self._collector = ReasoningCollector() if info.stored.encrypts_reasoning else None
        self._has_begun = False
        self._has_refused = False
        self._citations = Citations()

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
        if self._collector is not None and (packed := self._collector.take(event)) is not None:
            yield from self._encrypted(packed)
        yield from self._cite(event)
        match event:
            case Token():
                yield from self._text("output_text", "text", event.token)
                self._citations.length += len(event.token)
            case Refusal():
                self._has_refused = True
                yield from self._text("refusal", "refusal", event.text)
            case Reasoning():
                yield from self._reasoning(event.text)
            case ToolCall():
                yield from self._call(event)
            case Extra("openai", {"delta": {"annotations": list(annotations)}}):
                yield from self._annotate(annotations)
            case Extra():
                self._response.service_tier = openai_tier(event) or self._response.service_tier
            case Error():
                yield from self._fail(event)
            case Done():
                yield from self._end(event)

    def _text(self, kind: str, member: str, text: str) -> Generator[bytes, None, None]:
        """Yield a text delta. ``kind``: type of the part that contains the text."""
        growing = self._open
        if growing is None or growing.item["type"] != "message" or growing.item["content"][0]["type"] != kind:
            yield from self._close()
            self._citations.restart()
            part: Body = {"type": kind, member: ""}
            if kind == "output_text":
                part |= {"annotations": [], "logprobs": []}
            item = yield from self._add("message", "msg", role="assistant", content=[])
            item["content"].append(part)
            growing = self._open = Growing(item, part, member)
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
            growing = self._open = Growing(item, part, "text")
            yield self._frame(
                "response.reasoning_summary_part.added", **self._location(item), summary_index=0, part=part
            )
        growing.grow(text)
        location = self._location(growing.item)
        yield self._frame("response.reasoning_summary_text.delta", **location, summary_index=0, delta=text)

    def _encrypted(self, packed: Packed) -> Iterator[bytes]:
        """Finish the item of the reasoning that has ended; reasoning without a text gets an item of its own."""
        growing = self._open
        if growing is not None and growing.item["type"] == "reasoning":
            growing.item["encrypted_content"] = pack(*packed)
            yield from self._close()
            return
        yield from self._close()
        item = yield from self._add("reasoning", "rs", summary=[])
        item["encrypted_content"] = pack(*packed)
        yield self._done(item)

    def _cite(self, event: Event) -> Iterator[bytes]:
        """Yield the citations of a text that has ended."""
        if type(event) is not Token and (pages := self._citations.take(event)):
            yield from self._annotate([{"type": "url_citation", "url_citation": page} for page in pages])

    def _annotate(self, annotations: list[Any]) -> Iterator[bytes]:
        """Yield citations of the open text. Those that come at another place have no text to belong to."""
        growing = self._open
        if growing is None or growing.item["type"] != "message":
            return
        known = growing.item["content"][0].get("annotations")
        for annotation in annotations if known is not None else ():
            match annotation:
                case {"type": "url_citation", "url_citation": dict(members)}:
                    known.append({"type": "url_citation", **members})
                    places = {"content_index": 0, "annotation_index": len(known) - 1, "annotation": known[-1]}
                    location = self._location(growing.item)
                    yield self._frame("response.output_text.annotation.added", **location, **places)

    def _call(self, event: ToolCall) -> Iterator[bytes]:
        if event.complete:
            if (call := self._calls.pop(event.index, None)) is not None:
                yield from self._finish_call(call, event.arguments)
            return
        if event.index not in self._calls:
            yield from self._close()
            form = self._response.info.stored.forms.get(str(event.name))
            kind, prefix, members = members_of(event.id, event.name, form)
            item = yield from self._add(kind, prefix, **members)
            self._calls[event.index] = growing_call(item, form)
        call = self._calls[event.index]
        yield from self._call_delta(call, call.grow(event.arguments))

    def _finish_call(self, call: GrowingCall, arguments: str) -> Iterator[bytes]:
        item = call.item
        yield from self._call_delta(call, call.finish(arguments))
        if call.EVENT:
            named = {"name": item["name"]} if call.MEMBER == "arguments" else {}
            whole = {call.MEMBER: item[call.MEMBER], **named}
            yield self._frame(f"response.{call.EVENT}.done", **self._location(item), **whole)
        yield self._done(item)

    def _call_delta(self, call: GrowingCall, text: str) -> Iterator[bytes]:
        if text:
            yield self._frame(f"response.{call.EVENT}.delta", **self._location(call.item), delta=text)

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
        """Yield both events that OpenAI sends: many clients raise by ``error``, and ignore the failed response."""
        self.is_over = True
        self.failure = error
        yield from self._close()
        self._response.status = "failed"
        self._response.error = failed_response(error)
        yield self._frame("error", error=streamed(error) | {"code": self._response.error["code"]})
        yield self._frame("response.failed", response=self._response.body)

    def _end(self, done: Done) -> Iterator[bytes]:
        self.is_over = True
        yield from self._close()
        self._response.usage = usage_of(done.usage) if done.usage else None
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
