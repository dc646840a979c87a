"""OpenAI's Responses: items that are added, grow and are done. Sequence numbers are equal in every replay."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.append_only import STREAM_RESET
from gateway.dialects.citations import Citations
from gateway.dialects.logprobs import responses_logprobs
from gateway.dialects.openai_chat.errors import streamed
from gateway.dialects.openai_responses.errors import failed_response
from gateway.dialects.openai_responses.growing import GrowingCall, growing_call, members_of
from gateway.dialects.openai_responses.item_frames import ItemFrames
from gateway.dialects.openai_responses.response import Response, ResponseInfo, usage_of
from gateway.dialects.openai_responses.upstream import UpstreamData, own_item
from gateway.dialects.reasoning import Packed, ReasoningCollector, pack
from gateway.dialects.replay_filter import ReplayFilter
from gateway.dialects.service_tiers import openai_tier
from gateway.live.batch import Batch
from gateway.live.renderer import waiting_comment
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Extra, Reasoning, Refusal, Start, Token, ToolCall
from shared.protocol.waiting import Waiting

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: Error of a reader whose number the stream has not: its end alone would look like a complete answer.
_BEYOND_THE_END: Final = Error(
    "stream_reset",
    "starting_after: the stream has ended before this number; read it again from its start",
    retryable=True,
)
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
        self._frames = ItemFrames(self._response, after)
        self._filter = ReplayFilter()
        self._calls: dict[int, GrowingCall] = {}
        self._collector = ReasoningCollector() if info.stored.encrypts_reasoning else None
        self._has_begun = False
        self._has_refused = False
        self._citations = Citations()

    @property
    def response(self) -> Response:
        """Response object with everything rendered so far."""
        for growing in (*self._calls.values(), *([self._frames.open] if self._frames.open else ())):
            growing.join()
        return self._response

    def queued(self, queue_position: int) -> bytes:
        return b"".join(self._created())

    def waiting(self, waiting: Waiting) -> bytes:
        return b"".join([*self._created(), waiting_comment(waiting)])

    def render(self, batch: Batch) -> bytes:
        return b"".join([*self._created(), *self._rendered(batch)])

    # --- generators of frames

    def _created(self) -> Iterator[bytes]:
        """Yield the first frames. The SDK's helpers require them before any other, so they go out before a worker
        begins."""
        if not self._has_begun:
            self._has_begun = True
            yield self._frames.frame("response.created", response=self._response.body)
            self._response.status = "in_progress"
            yield self._frames.frame("response.in_progress", response=self._response.body)

    def _rendered(self, batch: Batch) -> Iterator[bytes]:
        new = self._filter.take(batch)
        if new is None:
            yield from self._fail(STREAM_RESET)
        for stored in new or ():
            if not self.is_over:
                yield from self._event(events.decode(stored))
        if self.is_over:
            yield from self._frames.beyond_the_end("error", error=streamed(_BEYOND_THE_END))

    def _event(self, event: Event) -> Iterator[bytes]:
        packed = self._collector.take(event) if self._collector is not None else None
        if packed is not None and packed[0] != "responses":
            yield from self._encrypted(packed)
        yield from self._cite(event)
        match event:
            case Token():
                yield from self._token(event.token)
            case Refusal():
                self._has_refused = True
                yield from self._frames.text("refusal", event.text)
            case Reasoning():
                text = self._frames.upstream.take_joint(event.text)
                yield from self._frames.text(self._frames.upstream.part or self._frames.reasoning_part(), text)
            case ToolCall():
                yield from self._call(event)
            case Extra():
                yield from self._extra(event)
            case Start():
                self._frames.upstream = UpstreamData()
            case Error():
                yield from self._fail(event)
            case Done():
                yield from self._end(event)

    def _token(self, text: str) -> Iterator[bytes]:
        before = self._frames.open
        yield from self._frames.text("output_text", text)
        if self._frames.open is not before:
            self._citations.restart()
        self._citations.length += len(text)

    def _extra(self, extra: Extra) -> Iterator[bytes]:
        match extra:
            case Extra("openai", {"delta": {"annotations": list(annotations)}}):
                yield from self._annotate(annotations)
            case Extra("responses", data):
                yield from self._merge(data)
            case _:
                self._frames.upstream.logprobs += responses_logprobs(extra)
                self._response.service_tier = openai_tier(extra) or self._response.service_tier

    def _merge(self, data: Body) -> Iterator[bytes]:
        """Merge the data of an upstream that speaks this API too."""
        upstream = self._frames.upstream
        match data:
            case {"open": str()}:
                yield from self._frames.close()
                upstream.begin(data)
            case {"part": str()}:
                upstream.begin(data)
            case {"close": dict(members)}:
                yield from self._close_of(members)
            case {"annotation": annotation}:
                yield from self._frames.annotation(annotation)
            case {"logprobs": list(logprobs)}:
                upstream.logprobs = logprobs
            case {"call": int(index), "members": dict(members)}:
                upstream.calls[index] = {**upstream.calls.get(index, {}), **members}
            case {"at": int(key)}:
                yield from self._provider_item(key, data)
            case {"response": dict(members)}:
                self._response.upstream = members
            case {"usage": dict(members)}:
                upstream.usage = members

    def _close_of(self, members: Body) -> Iterator[bytes]:
        """Finish the item of the provider. Reasoning without a text has not begun until now."""
        status = members.pop("status", "completed")
        members.pop("id", None)  # known from its beginning, or too late
        if self._frames.upstream.opening is not None:
            item = yield from self._frames.add("reasoning", "rs", summary=[])
            item |= members
            yield self._frames.done(item, status)
        elif self._frames.open is not None:
            self._frames.open.item |= members
            yield from self._frames.close(status)

    def _provider_item(self, key: int, data: Body) -> Iterator[bytes]:
        """Yield an event about an item of one of the provider's own tools."""
        items, output = self._frames.upstream.items, self._response.output
        whole = data.get("added") or data.get("done")
        if isinstance(whole, dict):
            yield from self._frames.close()
            if key not in items:
                items[key] = own_item(whole, self._response.info.stream_id, len(output))
                output.append(items[key])
                yield self._frames.frame("response.output_item.added", output_index=len(output) - 1, item=items[key])
            if "done" in data:
                known = items.pop(key)
                number = output.index(known)
                output[number] = {**whole, "id": known["id"]}
                yield self._frames.frame("response.output_item.done", output_index=number, item=output[number])
        elif isinstance(event := data.get("event"), dict) and key in items:
            members = {name: value for name, value in event.items() if name != "type"}
            yield self._frames.frame(str(event.get("type")), **self._frames.location(items[key]), **members)

    def _encrypted(self, packed: Packed) -> Iterator[bytes]:
        """Finish the item of the reasoning that has ended; reasoning without a text gets an item of its own."""
        growing = self._frames.open
        if growing is not None and growing.item["type"] == "reasoning":
            growing.item["encrypted_content"] = pack(*packed)
            yield from self._frames.close()
            return
        yield from self._frames.close()
        item = yield from self._frames.add("reasoning", "rs", summary=[])
        item["encrypted_content"] = pack(*packed)
        yield self._frames.done(item)

    def _cite(self, event: Event) -> Iterator[bytes]:
        """Yield the citations of a text that has ended."""
        if type(event) is not Token and (pages := self._citations.take(event)):
            yield from self._annotate([{"type": "url_citation", "url_citation": page} for page in pages])

    def _annotate(self, annotations: list[Any]) -> Iterator[bytes]:
        """Yield citations of a Chat Completions upstream."""
        for annotation in annotations:
            match annotation:
                case {"type": "url_citation", "url_citation": dict(members)}:
                    yield from self._frames.annotation({"type": "url_citation", **members})

    def _call(self, event: ToolCall) -> Iterator[bytes]:
        if event.complete:
            if (call := self._calls.pop(event.index, None)) is not None:
                yield from self._finish_call(call, event.arguments)
            return
        if event.index not in self._calls:
            yield from self._frames.close()
            form = self._response.info.stored.forms.get(str(event.name))
            kind, prefix, members = members_of(event.id, event.name, form)
            self._frames.upstream.opening = self._frames.upstream.calls.pop(event.index, None)
            item = yield from self._frames.add(kind, prefix, **members)
            self._calls[event.index] = growing_call(item, form)
        call = self._calls[event.index]
        yield from self._call_delta(call, call.grow(event.arguments))

    def _finish_call(self, call: GrowingCall, arguments: str) -> Iterator[bytes]:
        item = call.item
        yield from self._call_delta(call, call.finish(arguments))
        if call.EVENT:
            named = {"name": item["name"]} if call.MEMBER == "arguments" else {}
            whole = {call.MEMBER: item[call.MEMBER], **named}
            yield self._frames.frame(f"response.{call.EVENT}.done", **self._frames.location(item), **whole)
        yield self._frames.done(item)

    def _call_delta(self, call: GrowingCall, text: str) -> Iterator[bytes]:
        if text:
            yield self._frames.frame(f"response.{call.EVENT}.delta", **self._frames.location(call.item), delta=text)

    def _fail(self, error: Error) -> Iterator[bytes]:
        """Yield both events that OpenAI sends: many clients raise by ``error``, and ignore the failed response."""
        self.is_over = True
        self.failure = error
        yield from self._frames.close()
        self._response.status = "failed"
        self._response.error = failed_response(error)
        yield self._frames.frame("error", error=streamed(error) | {"code": self._response.error["code"]})
        yield self._frames.frame("response.failed", response=self._response.body)

    def _end(self, done: Done) -> Iterator[bytes]:
        self.is_over = True
        yield from self._frames.close()
        self._response.usage = self._frames.upstream.merged(usage_of(done.usage)) if done.usage else None
        if done.finish_reason == "cancelled":
            self._response.status = "cancelled"
            yield self._frames.frame("response.incomplete", response=self._response.body)
        elif reason := self._incomplete_reason(done):
            self._response.status = "incomplete"
            self._response.incomplete = {"reason": reason}
            yield self._frames.frame("response.incomplete", response=self._response.body)
        else:
            self._response.status = "completed"
            yield self._frames.frame("response.completed", response=self._response.body)

    # --- internal

    def _incomplete_reason(self, done: Done) -> str | None:
        """Return None for a complete answer. A refusal with text is complete."""
        if self._has_refused and done.finish_reason == "content_filter":
            return None
        return _INCOMPLETE.get(done.finish_reason)
