"""Anthropic's Messages responses: content blocks that start, grow and stop, or one message."""

import json
from typing import Any, Final

import msgspec

from gateway.dialects.anthropic import errors as anthropic_errors
from gateway.dialects.append_only import CANCELLED, AppendOnlyRenderer
from gateway.dialects.token_counts import counted
from shared.protocol.events import Done, Error, Event, PartialUsage, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.transcript import Transcript

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
Body = dict[str, Any]


class MessageEvents(AppendOnlyRenderer):
    """Renderer of a streamed response. A block of text or thinking stops when a block of another kind starts. Each
    tool call has its own block, open until the call is complete, so that parallel calls may grow in turn.

    ``prompt_tokens``: an estimate for the first event, because most providers report usage at the end.
    """

    def __init__(self, stream_id: str, *, prompt_tokens: int) -> None:
        super().__init__()
        self._prompt_tokens = prompt_tokens
        self._id = f"msg_{stream_id}"
        self._blocks = 0
        self._open: str | None = None  # kind of the last block, if it is open for text
        self._calls: dict[int, int] = {}  # block indexes of incomplete tool calls, by call index

    def _event(self, event: Event) -> bytes:
        match event:
            case Start():
                return self._begin(event)
            case Error():
                return self._fail(event)
            case Done():
                return self._end(event)
            case ToolCall():
                return self._call(event)
        return self._text_of(event)

    def _text_of(self, event: Event) -> bytes:
        match event:
            case Token():
                return self._grow("text", {"type": "text_delta", "text": event.token})
            case Refusal():
                return self._grow("text", {"type": "text_delta", "text": event.text})
            case Reasoning():
                return self._grow("thinking", {"type": "thinking_delta", "thinking": event.text})
        return b""

    def _begin(self, start: Start) -> bytes:
        self._has_begun = True
        usage = self._first_usage(start)
        message = _message(self._id, f"{start.provider}/{start.model}" if start.model else "", usage)
        return _frame({"type": "message_start", "message": message})

    def _first_usage(self, start: Start) -> Body:
        """Return the counts of the input, estimated unless the provider has reported them."""
        counts = start.usage or PartialUsage()
        return _usage(
            Usage(
                counts.input_tokens or self._prompt_tokens,
                output_tokens=0,
                cached_tokens=counts.cached_tokens,
                cache_write_tokens=counts.cache_write_tokens,
            )
        )

    def _grow(self, kind: str, delta: Body) -> bytes:
        started = b""
        if self._open != kind:
            block: Body = {"type": "thinking", "thinking": "", "signature": ""}
            if kind == "text":
                block = _text_block("")
            started = self._stop() + self._start(block)
            self._open = kind
        return started + _frame({"type": "content_block_delta", "index": self._blocks - 1, "delta": delta})

    def _call(self, call: ToolCall) -> bytes:
        if call.complete:
            index = self._calls.pop(call.index, None)
            return b"" if index is None else _frame({"type": "content_block_stop", "index": index})
        started = b""
        if call.index not in self._calls:
            block: Body = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            started = self._stop() + self._start(block)
            self._calls[call.index] = self._blocks - 1
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return started + _frame({"type": "content_block_delta", "index": self._calls[call.index], "delta": delta})

    def _start(self, block: Body) -> bytes:
        self._blocks += 1
        return _frame({"type": "content_block_start", "index": self._blocks - 1, "content_block": block})

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _frame({"type": "content_block_stop", "index": self._blocks - 1})

    def _error(self, error: Error) -> bytes:
        return _frame(anthropic_errors.body_of(anthropic_errors.type_of(error.code), error.message))

    def _end(self, done: Done) -> bytes:
        if done.finish_reason not in _STOP_REASONS:
            return self._fail(CANCELLED)
        self._is_over = True
        begun = b"" if self._has_begun else self._begin(Start(self._id, model="", provider="", attempt=0))
        delta = {"stop_reason": _STOP_REASONS[done.finish_reason], "stop_sequence": None}
        return (
            begun
            + self._stop()
            + _frame({"type": "message_delta", "delta": delta, "usage": _usage(done.usage)})
            + _frame({"type": "message_stop"})
        )


def message(stream_id: str, transcript: Transcript) -> Body:
    """Return the whole answer as one message."""
    start, done = transcript.start, transcript.done
    usage = _usage(done.usage if done else None)
    body = _message(f"msg_{stream_id}", f"{start.provider}/{start.model}" if start else "", usage)
    if transcript.reasoning:
        body["content"].append({"type": "thinking", "thinking": transcript.reasoning, "signature": ""})
    if text := transcript.text or transcript.refusal:
        body["content"].append(_text_block(text))
    for call in transcript.tool_calls:
        body["content"].append(
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        )
    body["stop_reason"] = _STOP_REASONS.get(done.finish_reason) if done else None
    return body


def token_count(_: str, transcript: Transcript) -> Body:
    """Return the number of tokens in a request."""
    usage = transcript.done.usage if transcript.done else None
    return {"input_tokens": usage.input_tokens if usage else 0}


def _message(message_id: str, model: str, usage: Body) -> Body:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _text_block(text: str) -> Body:
    return {"type": "text", "text": text}


def _usage(usage: Usage | None) -> Body:
    """Return the usage. Anthropic counts input tokens without those of its cache."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    body: Body = {
        "input_tokens": max(0, usage.input_tokens - (cached or 0) - (written or 0)),
        **counted(cache_read_input_tokens=cached, cache_creation_input_tokens=written),
        "output_tokens": usage.output_tokens,
    }
    if details := counted(thinking_tokens=usage.reasoning_tokens):
        body["output_tokens_details"] = details
    return body


def _frame(body: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), msgspec.json.encode(body))
