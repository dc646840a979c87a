"""Anthropic's Messages: blocks that begin, grow and stop, or one message."""

import json
from typing import Any, Final

import msgspec

from gateway.dialects.anthropic import errors as anthropic_errors
from gateway.dialects.replay_filter import ReplayFilter
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.transcript import Transcript

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
Body = dict[str, Any]


class MessageEvents:
    """As :class:`ChatCompletionChunks`. Text and thinking stop where another kind begins; each call has a block of
    its own, open until the call is whole, so that parallel ones may grow in turn."""

    resumable = False

    def __init__(self, stream_id: str) -> None:
        self.failure: Error | None = None
        self._id = f"msg_{stream_id}"
        self._continuation = ReplayFilter()
        self._has_begun = False
        self._is_over = False
        self._blocks = 0
        self._open: str | None = None  # the kind of block that text goes into now, which is the last one
        self._calls: dict[int, int] = {}  # blocks of those that are not whole yet

    def queued(self, place: int) -> bytes:
        return b""

    def render(self, run: Batch) -> bytes:
        new = self._continuation.take(run)
        if new is None:
            return self._fail(Error("stream_reset", "the answer began anew, and this protocol cannot say so", True))
        return b"".join(self._event(events.decode(stored)) for stored in new)

    def _event(self, event: Event) -> bytes:
        if self._is_over:
            return b""
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
        return _frame({"type": "message_start", "message": _message(self._id, f"{start.provider}/{start.model}")})

    def _grow(self, kind: str, delta: Body) -> bytes:
        begun = b""
        if self._open != kind:
            block: Body = {"type": "thinking", "thinking": "", "signature": ""}
            if kind == "text":
                block = _text_block("")
            begun = self._stop() + self._start(block)
            self._open = kind
        return begun + _frame({"type": "content_block_delta", "index": self._blocks - 1, "delta": delta})

    def _call(self, call: ToolCall) -> bytes:
        if call.complete:
            index = self._calls.pop(call.index, None)
            return b"" if index is None else _frame({"type": "content_block_stop", "index": index})
        begun = b""
        if call.index not in self._calls:
            block: Body = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            begun = self._stop() + self._start(block)
            self._calls[call.index] = self._blocks - 1
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return begun + _frame({"type": "content_block_delta", "index": self._calls[call.index], "delta": delta})

    def _start(self, block: Body) -> bytes:
        self._blocks += 1
        return _frame({"type": "content_block_start", "index": self._blocks - 1, "content_block": block})

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _frame({"type": "content_block_stop", "index": self._blocks - 1})

    def _fail(self, error: Error) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        if not self._has_begun:
            self.failure = error
            return b""
        return _frame(anthropic_errors.body_of(anthropic_errors.type_of(error.code), error.message))

    def _end(self, done: Done) -> bytes:
        if done.finish_reason not in _STOP_REASONS:
            return self._fail(Error("cancelled", "the answer was cancelled", retryable=False))
        self._is_over = True
        delta = {"stop_reason": _STOP_REASONS[done.finish_reason], "stop_sequence": None}
        return (
            self._stop()
            + _frame({"type": "message_delta", "delta": delta, "usage": _usage(done.usage)})
            + _frame({"type": "message_stop"})
        )


def message(stream_id: str, transcript: Transcript) -> Body:
    """The whole answer as one message."""
    start, done = transcript.start, transcript.done
    made = _message(f"msg_{stream_id}", f"{start.provider}/{start.model}" if start else "")
    if transcript.reasoning:
        made["content"].append({"type": "thinking", "thinking": transcript.reasoning, "signature": ""})
    if text := transcript.text or transcript.refusal:
        made["content"].append(_text_block(text))
    for call in transcript.tool_calls:
        made["content"].append(
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        )
    made["stop_reason"] = _STOP_REASONS.get(done.finish_reason) if done else None
    made["usage"] = _usage(done.usage if done else None)
    return made


def counted(_: str, transcript: Transcript) -> Body:
    """How many tokens a request has."""
    return {"input_tokens": _usage(transcript.done.usage if transcript.done else None)["input_tokens"]}


def _message(message_id: str, model: str) -> Body:
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(None),  # told at the end
    }


def _text_block(text: str) -> Body:
    return {"type": "text", "text": text}


def _usage(usage: Usage | None) -> Body:
    return {
        "input_tokens": usage.input_tokens if usage else 0,
        "output_tokens": usage.output_tokens if usage else 0,
    }


def _frame(body: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), msgspec.json.encode(body))
