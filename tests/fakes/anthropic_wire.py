"""Anthropic's Messages stream."""

from collections.abc import Sequence
from typing import Any, Final

from tests.fakes.answer import Counts, ToolCall
from tests.fakes.wire import dumps, without_none

_STOP_REASON: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_TYPE_BY_STATUS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicWire:
    name = "anthropic"
    content_type = "text/event-stream; charset=utf-8"
    unknown = b'event: future\ndata: {"type":"future","delta":{"type":"aura_delta","aura":1},"index":7}\n\n'
    comment = b': nothing\n\nevent: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, *, number: int, request: dict[str, Any]) -> None:
        self._id = f"msg_{number}"
        self._model = request["model"]
        self._block: str | None = None
        self._index = -1
        #: The answer comes as the input of this tool.
        self._forced = (request.get("tool_choice") or {}).get("name")

    def opening(self, usage: Counts | None) -> bytes:
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        if usage is not None:
            begun = None if usage.output is None else 1
            message["usage"] = _input_counts(usage) | without_none({"output_tokens": begun})
        return _frame({"type": "message_start", "message": message})

    def reasoning(self, text: str) -> bytes:
        return self._delta("thinking", {"type": "thinking_delta", "thinking": text})

    def text(self, text: str) -> bytes:
        if self._forced is not None:
            start = b"" if self._block == "tool_use" else self._start_tool("toolu_forced", self._forced)
            return start + self._input(text)
        return self._delta("text", {"type": "text_delta", "text": text})

    def refused(self, text: str) -> bytes:
        return self.text(text)

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[bytes]:
        frames = []
        for call in calls:
            frames.append(self._start_tool(call.id, call.name))
            frames += [self._input(fragment) for fragment in call.fragments]
            frames.append(self._stop_block())
        return frames

    def ending(self, finish_reason: str, usage: Counts | None) -> bytes:
        if self._forced is not None and finish_reason == "stop":
            finish_reason = "tool_use"
        delta = {"stop_reason": _STOP_REASON.get(finish_reason, finish_reason), "stop_sequence": None}
        message_delta: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if usage is not None:
            message_delta["usage"] = without_none({"output_tokens": usage.output})
            if usage.reasoning is not None:
                message_delta["usage"]["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
        return self._stop_block() + _frame(message_delta) + _frame({"type": "message_stop"})

    def error_in_band(self, message: str, error_type: str | None) -> bytes:
        return _frame({"type": "error", "error": {"type": error_type or "overloaded_error", "message": message}})

    @staticmethod
    def refusal(status: int, message: str) -> dict[str, Any]:
        kind = _TYPE_BY_STATUS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}

    @staticmethod
    def model_list(models: list[str]) -> dict[str, Any]:
        rows = [{"id": m, "type": "model", "display_name": m, "created_at": "2026-01-01T00:00:00Z"} for m in models]
        ends = {"first_id": models[0], "last_id": models[-1]} if models else {"first_id": None, "last_id": None}
        return {"data": rows, "has_more": False, **ends}

    def _delta(self, block: str, delta: dict[str, str]) -> bytes:
        return self._start_block(block) + _frame(
            {"type": "content_block_delta", "index": self._index, "delta": delta}
        )

    def _start_block(self, block: str) -> bytes:
        if self._block == block:
            return b""
        frames = self._stop_block()
        self._block = block
        self._index += 1
        empty = {"type": block, block: ""} | ({"signature": ""} if block == "thinking" else {})
        return frames + _frame({"type": "content_block_start", "index": self._index, "content_block": empty})

    def _start_tool(self, call_id: str, name: str) -> bytes:
        frames = self._stop_block()
        self._block = "tool_use"
        self._index += 1
        empty = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        return frames + _frame({"type": "content_block_start", "index": self._index, "content_block": empty})

    def _input(self, fragment: str) -> bytes:
        delta = {"type": "input_json_delta", "partial_json": fragment}
        return _frame({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _stop_block(self) -> bytes:
        if self._block is None:
            return b""
        frames = b""
        if self._block == "thinking":
            signature = {"type": "signature_delta", "signature": "c2lnbmVk"}
            frames = _frame({"type": "content_block_delta", "index": self._index, "delta": signature})
        self._block = None
        return frames + _frame({"type": "content_block_stop", "index": self._index})


def _input_counts(usage: Counts) -> dict[str, int]:
    """Return the counts of the input: Anthropic counts the tokens of its cache apart."""
    apart = {"cache_read_input_tokens": usage.cached, "cache_creation_input_tokens": usage.cache_write}
    own = None if usage.input is None else usage.input - sum(without_none(apart).values())
    return without_none({"input_tokens": own, **apart})


def _frame(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {dumps(data)}\n\n".encode()
