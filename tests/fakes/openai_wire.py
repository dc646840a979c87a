"""Chat Completions, as OpenAI and compatible servers stream them."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from tests.fakes.answer import Counts, ToolCall
from tests.fakes.wire import dumps, without_none

_TYPE_BY_STATUS: Final = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}


class OpenAIWire:
    name = "openai"
    content_type = "text/event-stream"
    comment = b": PROCESSING\n\n"
    unknown = b'event: future\ndata: {"object":"future","choices":[{"delta":{"aura":1}}],"weather":{}}\n\n'

    def __init__(self, *, number: int, request: dict[str, Any]) -> None:
        self._envelope = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": request["model"],
        }
        self._include_usage = bool((request.get("stream_options") or {}).get("include_usage"))

    def opening(self, usage: Counts | None) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def reasoning(self, text: str) -> bytes:
        return self._chunk({"reasoning_content": text})

    def text(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def refused(self, text: str) -> bytes:
        return self._chunk({"refusal": text})

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[bytes]:
        frames = []
        for index, call in enumerate(calls):
            begun = {"index": index, "id": call.id, "type": "function"}
            frames.append(self._chunk({"tool_calls": [{**begun, "function": {"name": call.name, "arguments": ""}}]}))
        for together in zip_longest(*(call.fragments for call in calls)):
            for index, fragment in enumerate(together):
                if fragment is not None:
                    part = {"index": index, "function": {"arguments": fragment}}
                    frames.append(self._chunk({"tool_calls": [part]}))
        return frames

    def ending(self, finish_reason: str, usage: Counts | None) -> bytes:
        frames = self._chunk({}, finish_reason)
        if usage is not None and self._include_usage:
            frames += _frame({**self._envelope, "choices": [], "usage": _usage(usage)})
        return frames + b"data: [DONE]\n\n"

    def error_in_band(self, message: str, error_type: str | None) -> bytes:
        kind = error_type or "server_error"
        return _frame({"error": {"message": message, "type": kind, "code": kind, "param": None}})

    @staticmethod
    def refusal(status: int, message: str) -> dict[str, Any]:
        kind = _TYPE_BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    @staticmethod
    def model_list(models: list[str]) -> dict[str, Any]:
        rows = [{"id": m, "object": "model", "created": 1, "owned_by": "fake"} for m in models]
        return {"object": "list", "data": rows}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _frame({**self._envelope, "choices": [choice]})


def _usage(usage: Counts) -> dict[str, Any]:
    total = None if usage.input is None or usage.output is None else usage.input + usage.output
    counts = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": total}
    details = {
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    return without_none(counts) | {name: made for name, parts in details.items() if (made := without_none(parts))}


def _frame(data: dict[str, Any]) -> bytes:
    return f"data: {dumps(data)}\n\n".encode()
