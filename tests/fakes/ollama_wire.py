"""Ollama's ``/api/chat``: one JSON object a line."""

import json
from collections.abc import Sequence
from typing import Any

from tests.fakes.answer import Counts, ToolCall
from tests.fakes.wire import dumps, without_none


class OllamaWire:
    name = "ollama"
    content_type = "application/x-ndjson"
    comment = b""
    unknown = b'{"model":"m","future":{"aura":1},"done":false}\n'

    def __init__(self, *, number: int, request: dict[str, Any]) -> None:
        self._envelope = {"model": request["model"], "created_at": "2026-01-01T00:00:00.000000Z"}

    def opening(self, usage: Counts | None) -> bytes:
        return b""

    def reasoning(self, text: str) -> bytes:
        return self._message({"role": "assistant", "content": "", "thinking": text})

    def text(self, text: str) -> bytes:
        return self._message({"role": "assistant", "content": text})

    def refused(self, text: str) -> bytes:
        return self.text(text)

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[bytes]:
        """Return all calls in one line. Ollama's parser drops a call whose arguments are not JSON."""
        made = [{"function": {"name": c.name, "arguments": json.loads("".join(c.fragments))}} for c in calls]
        return [self._message({"role": "assistant", "content": "", "tool_calls": made})]

    def ending(self, finish_reason: str, usage: Counts | None) -> bytes:
        finish_reason = "stop" if finish_reason == "tool_calls" else finish_reason
        counts = {} if usage is None else _counts(usage)
        last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": finish_reason}
        return _line({**self._envelope, **last, "total_duration": 1, "load_duration": 1, **counts})

    def error_in_band(self, message: str, error_type: str | None) -> bytes:
        return _line({"error": message})

    @staticmethod
    def refusal(status: int, message: str) -> dict[str, Any]:
        return {"error": message}

    @staticmethod
    def model_list(models: list[str]) -> dict[str, Any]:
        rows = [
            {"name": m, "model": m, "modified_at": "2026-01-01T00:00:00Z", "size": 1, "digest": "0", "details": {}}
            for m in models
        ]
        return {"models": rows}

    def _message(self, message: dict[str, Any]) -> bytes:
        return _line({**self._envelope, "message": message, "done": False})


def _counts(usage: Counts) -> dict[str, int]:
    counts = {"prompt_eval_count": usage.input, "eval_count": usage.output}
    return without_none({**counts, "prompt_eval_cached_count": usage.cached})


def _line(data: dict[str, Any]) -> bytes:
    # Ollama is written in Go, whose JSON escapes these two.
    return dumps(data).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode() + b"\n"
