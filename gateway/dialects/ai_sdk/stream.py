"""UI message stream of Vercel's AI SDK: parts that start, grow and end, within a step of a message.

The protocol can take back a step (`reset-step`), so the loss of a worker is not an error here. Clients cannot send a
cursor: a replay begins with `start`, which empties the message that they show.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import msgspec

from gateway.dialects.ai_sdk.metadata import joined, of_family, packed, redacted, signed
from gateway.dialects.citations import cited_document, pages_of
from gateway.dialects.reasoning import CALLS, ReasoningCollector
from gateway.dialects.token_counts import counted
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Extra, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.waiting import Waiting

#: Final chunk; the caller sends it.
DONE: Final = b"data: [DONE]\n\n"
_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "cancelled": "interrupted",
    "error": "error",
}
Body = dict[str, Any]


class UiMessageChunks:
    """``message_id``: the same for every replay; otherwise a page would show the answer twice. ``shown``: the parts
    that the message had before this answer, for a replay."""

    resumable = False  # the SDK reconnects when its page becomes visible, or not at all

    def __init__(self, message_id: str, shown: list[Body] | None = None) -> None:
        self._message_id = message_id
        self._shown = shown or []
        self._has_begun = False
        self._in_step = False
        self._parts = 0
        self._open: str | None = None  # kind of the part that grows: text or reasoning
        self._metadata: Body = {}  # of that part
        self._reasoning = ReasoningCollector()
        self._sources: list[Body] = []
        self._call_ids: dict[int, str] = {}  # by call index
        self._call_metadata: dict[Any, Body] = {}  # by call index or id

    def queued(self, queue_position: int) -> bytes:
        frames = list(self._begin())
        if queue_position:
            frames.append(_chunk("data-queued", data={"position": queue_position}, transient=True))
        return b"".join(frames)

    def waiting(self, waiting: Waiting) -> bytes:
        return b"".join([*self._begin(), _chunk("data-waiting", data=asdict(waiting), transient=True)])

    def render(self, batch: Batch) -> bytes:
        return b"".join([*self._begin(), *self._reset(batch), *self._rendered(batch)])

    # --- generators of frames

    def _begin(self) -> Iterator[bytes]:
        if not self._has_begun:
            self._has_begun = True
            yield _chunk("start", messageId=self._message_id)
            yield from self._replay_shown()

    def _replay_shown(self) -> Iterator[bytes]:
        for part in self._shown:
            match str(part.get("type")):
                case "step-start":
                    yield from self._finish_step()
                    yield from self._start_step()
                case "text" | "reasoning" as kind:
                    yield from self._grow(kind, str(part.get("text", "")))
                    self._add_metadata(part.get("providerMetadata"))
                    yield from self._close()
                case kind if kind.startswith("tool-") or kind == "dynamic-tool":
                    yield from _past_call(part, kind)
                case kind if kind.startswith(("data-", "source-")) or kind == "file":
                    yield msgspec.json.encode(part).join((b"data: ", b"\n\n"))
        yield from self._finish_step()

    def _reset(self, batch: Batch) -> Iterator[bytes]:
        """Take back the current step, if the batch resets the stream."""
        if batch.reset and self._in_step:
            self._open = None
            self._metadata = {}
            self._sources.clear()
            self._call_ids.clear()
            self._call_metadata.clear()
            yield _chunk("reset-step")

    def _rendered(self, batch: Batch) -> Iterator[bytes]:
        for _, stored in batch.events:
            event = events.decode(stored)
            yield from self._finish_reasoning(event)
            yield from self._event(event)

    def _finish_reasoning(self, next_event: Event) -> Iterator[bytes]:
        """Keep reasoning that a server of OpenAI's APIs wants back, if it ends before ``next_event``. Anthropic's
        blocks are parts of their own."""
        match self._reasoning.take(next_event):
            case ("openai" | "responses" as family, data) if data.keys() != {CALLS}:
                # A part of a call has metadata of its own.
                yield from self._start_part("reasoning")
                self._add_metadata(packed(family, {name: data[name] for name in data if name != CALLS}))

    def _event(self, event: Event) -> Iterator[bytes]:
        match event:
            case Start():
                yield from self._start_step()
            case Token():
                yield from self._grow("text", event.token)
            case Refusal():
                yield from self._grow("text", event.text)
            case Reasoning():
                yield from self._grow("reasoning", event.text)
            case ToolCall():
                yield from self._call(event)
            case Extra():
                yield from self._extra(event.family, event.data)
                yield from self._cite(event)
            case events.Continued():
                target = {"provider": event.provider, "model": event.model}
                yield _chunk("data-continued", data=target, transient=True)
            case Error():
                yield from self._close()
                yield _chunk("error", errorText=event.message)
            case Done():
                yield from self._end(event)

    def _start_step(self) -> Iterator[bytes]:
        if not self._in_step:
            self._in_step = True
            yield _chunk("start-step")

    def _finish_step(self) -> Iterator[bytes]:
        yield from self._close()
        if self._in_step:
            self._in_step = False
            yield _chunk("finish-step")

    def _grow(self, kind: str, text: str) -> Iterator[bytes]:
        yield from self._start_part(kind)
        yield _chunk(f"{kind}-delta", id=str(self._parts), delta=text)

    def _start_part(self, kind: str) -> Iterator[bytes]:
        yield from self._start_step()
        if self._open != kind:
            yield from self._close()
            self._open = kind
            self._parts += 1
            yield _chunk(f"{kind}-start", id=str(self._parts))

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _chunk(f"{self._open}-end", id=str(self._parts), **_provider_metadata(self._metadata))
            self._open = None
            self._metadata = {}

    def _extra(self, family: str, data: Body) -> Iterator[bytes]:
        """Keep the data that has to go back to the provider as metadata of a part."""
        match family, data:
            case "anthropic", {"open": _}:
                yield from self._close()
            case "anthropic", {"in": "thinking", "delta": {"signature": str(signature)}}:
                yield from self._start_part("reasoning")
                self._add_metadata(signed(signature))
            case "anthropic", {"block": {"type": "redacted_thinking", "data": str(encrypted)}}:
                yield from self._close()
                yield from self._start_part("reasoning")
                self._add_metadata(redacted(encrypted))
                yield from self._close()
            case (_, {"call": str() | int() as call, "block": dict(members)}) | (
                _,
                {"call": str() | int() as call, "members": dict(members)},
            ):
                self._call_metadata[call] = of_family(family, members)
            case "openai", {"delta": {"extra_content": dict(content)}}:
                yield from self._start_part(self._open or "text")
                self._add_metadata(of_family("openai", {"extra_content": content}))

    def _cite(self, event: Extra) -> Iterator[bytes]:
        """Yield each cited source once."""
        found = [("source-url", page) for page in pages_of(event)]
        if (document := cited_document(event)) is not None:
            found.append(("source-document", document))
        for kind, source in found:
            if source not in self._sources:
                self._sources.append(source)
                yield _chunk(kind, sourceId=f"{self._message_id}-source-{len(self._sources)}", **source)

    def _add_metadata(self, metadata: object) -> None:
        if isinstance(metadata, dict):
            self._metadata = joined(self._metadata, metadata)

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        if call.complete:
            yield from self._close()
            arguments = msgspec.json.decode(call.arguments)
            metadata = self._call_metadata.get(call.index) or self._call_metadata.get(call.id) or {}
            members = _provider_metadata(metadata)
            yield _chunk("tool-input-available", toolCallId=call.id, toolName=call.name, input=arguments, **members)
            return
        if call.index not in self._call_ids:
            self._call_ids[call.index] = str(call.id)
            yield from self._close()
            yield _chunk("tool-input-start", toolCallId=call.id, toolName=call.name)
        yield _chunk("tool-input-delta", toolCallId=self._call_ids[call.index], inputTextDelta=call.arguments)

    def _end(self, done: Done) -> Iterator[bytes]:
        yield from self._finish_step()
        if done.usage is not None:
            yield _chunk("data-usage", data=_usage(done.usage))
        if done.finish_reason != "error":  # an `error` event has already reported that
            yield _chunk("finish", finishReason=_FINISH_REASONS.get(done.finish_reason, "other"))


def _usage(usage: Usage) -> Body:
    """Return the SDK's ``LanguageModelUsage``."""
    cached, written, reasoning = usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    input_details = counted(cacheReadTokens=cached, cacheWriteTokens=written)
    if input_details:
        input_details["noCacheTokens"] = max(0, usage.input_tokens - (cached or 0) - (written or 0))
    output_details = counted(reasoningTokens=reasoning)
    if output_details:
        output_details["textTokens"] = max(0, usage.output_tokens - (reasoning or 0))
    return {
        "inputTokens": usage.input_tokens,
        "inputTokenDetails": input_details,
        "outputTokens": usage.output_tokens,
        "outputTokenDetails": output_details,
        "totalTokens": usage.input_tokens + usage.output_tokens,
    }


def _past_call(part: Body, kind: str) -> Iterator[bytes]:
    """Yield a tool call of an earlier answer, marked as executed; otherwise the page would call the tool again."""
    call_id, name = part.get("toolCallId"), part.get("toolName") or kind.removeprefix("tool-")
    common: Body = {"toolCallId": call_id, "providerExecuted": True}
    metadata = part.get("callProviderMetadata")
    own = _provider_metadata(metadata if isinstance(metadata, dict) else {})
    if kind == "dynamic-tool":
        common["dynamic"] = True
    match part.get("state"):
        case "output-available":
            yield _chunk("tool-input-available", toolName=name, input=part.get("input"), **common, **own)
            yield _chunk("tool-output-available", output=part.get("output"), **common)
        case "output-error":
            yield _chunk("tool-input-available", toolName=name, input=part.get("input"), **common, **own)
            yield _chunk("tool-output-error", errorText=str(part.get("errorText")), **common)


def _provider_metadata(metadata: Body) -> Body:
    return {"providerMetadata": metadata} if metadata else {}


def _chunk(kind: str, **members: Any) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode({"type": kind, **members})
