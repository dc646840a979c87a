"""Mixed dialects: streams of the native API and of four foreign ones at once, in turn."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.client import JobRequest
from bench.load import Load
from bench.stage import PROMPT_BYTES, Stage, StageFailed, Values
from bench.targets.headrace import Headrace

_NATIVE: Final = ("/chat/stream", "event: done", "")
_CHAT: Final = ("/v1/chat/completions", "data: [DONE]", "")
_MESSAGES: Final = ("/v1/messages", "event: message_stop", "")
#: The events after the last delta repeat the whole text.
_RESPONSES: Final = ("/v1/responses", "event: response.completed", "event: response.output_text.done")
_AI_SDK: Final = ("/api/chat", "data: [DONE]", "")


@dataclass(frozen=True, slots=True)
class MixedDialects:
    """Shape like ``load``, with an equal share of the streams in each dialect."""

    load: Load

    async def measure(self, stage: Stage) -> Values:
        if not isinstance(stage.target, Headrace):
            raise StageFailed("this target has one dialect")
        return await self.load.measure(stage, _requests)


def _requests(model: str, streams: int) -> list[JobRequest]:
    """Return a request for each stream. Requests of the AI SDK differ: a chat has one answer at a time."""
    dialects: Sequence[Callable[[str, int], JobRequest]] = (_native, _chat, _messages, _responses, _ai_sdk)
    return [dialects[number % len(dialects)](model, number) for number in range(streams)]


def _native(model: str, number: int) -> JobRequest:
    return _request(_NATIVE, {"provider": "openai", "model": model, "messages": _asked()})


def _chat(model: str, number: int) -> JobRequest:
    return _request(_CHAT, {"model": f"openai/{model}", "messages": _asked(), "stream": True})


def _messages(model: str, number: int) -> JobRequest:
    body = {"model": f"openai/{model}", "max_tokens": 100_000, "messages": _asked(), "stream": True}
    return _request(_MESSAGES, body)


def _responses(model: str, number: int) -> JobRequest:
    return _request(_RESPONSES, {"model": f"openai/{model}", "input": "x" * PROMPT_BYTES, "stream": True})


def _ai_sdk(model: str, number: int) -> JobRequest:
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "x" * PROMPT_BYTES}]}
    return _request(_AI_SDK, {"id": f"chat-{number}", "model": f"openai/{model}", "messages": [message]})


def _asked() -> list[dict[str, str]]:
    return [{"role": "user", "content": "x" * PROMPT_BYTES}]


def _request(dialect: tuple[str, str, str], body: dict[str, Any]) -> JobRequest:
    path, end, text_end = dialect
    return JobRequest(path=path, body=json.dumps(body), end=end, text_end=text_end)
