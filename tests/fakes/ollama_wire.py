"""Ollama's ``/api/chat``: one JSON object a line."""

from typing import Any

from tests.fakes.wire import dumps


class OllamaWire:
    name = "ollama"
    content_type = "application/x-ndjson"
    comment = b""

    def __init__(self, *, number: int, request: dict[str, Any]) -> None:
        self._envelope = {"model": request["model"], "created_at": "2026-01-01T00:00:00.000000Z"}

    def opening(self, input_tokens: int | None) -> bytes:
        return b""

    def reasoning(self, text: str) -> bytes:
        return self._message({"role": "assistant", "content": "", "thinking": text})

    def text(self, text: str) -> bytes:
        return self._message({"role": "assistant", "content": text})

    def ending(self, finish_reason: str, usage: tuple[int, int] | None) -> bytes:
        counts = {} if usage is None else {"prompt_eval_count": usage[0], "eval_count": usage[1]}
        last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": finish_reason}
        return _line({**self._envelope, **last, "total_duration": 1, "load_duration": 1, **counts})

    def error_in_band(self, message: str) -> bytes:
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

    def _message(self, message: dict[str, str]) -> bytes:
        return _line({**self._envelope, "message": message, "done": False})


def _line(data: dict[str, Any]) -> bytes:
    # Ollama is written in Go, whose JSON escapes these two.
    return dumps(data).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode() + b"\n"
