"""Answers in the formats of OpenAI's Chat Completions and Anthropic's Messages."""

import json
from collections.abc import Iterator
from typing import Any

from headrace_conformance.provider.scripts import Answer


def openai(answer: Answer, model: str, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed chat completion, one for each piece. A ``cut`` answer has no last event."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": f"kit-{number}", "object": "chat.completion.chunk", "created": 1, "model": model}
        return _data({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in answer.pieces:
        yield chunk({"content": piece})
    if answer.tool is not None:
        name, arguments = answer.tool
        half = len(arguments) // 2
        function = {"name": name, "arguments": arguments[:half]}
        yield chunk({"tool_calls": [{"index": 0, "id": f"call-{number}", "type": "function", "function": function}]})
        yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[half:]}}]})
    if answer.ends == "error":
        yield _data({"error": {"message": "The kit's provider failed.", "type": "server_error", "code": None}})
    if answer.ends == "finish":
        yield chunk({}, "stop" if answer.tool is None else "tool_calls")
        yield b"data: [DONE]\n\n"


def anthropic(answer: Answer, model: str, number: int) -> Iterator[bytes]:
    """Yield the events of a streamed message, one for each piece."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": f"kit-{number}", "type": "message", "role": "assistant", "model": model, "content": []}
    yield _event({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}})
    yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for piece in answer.pieces:
        yield _event(_anthropic_delta(0, {"type": "text_delta", "text": piece}))
    if answer.ends == "error":
        error = {"type": "overloaded_error", "message": "The kit's provider failed."}
        yield _event({"type": "error", "error": error})
    if answer.ends != "finish":
        return
    yield _event({"type": "content_block_stop", "index": 0})
    if answer.tool is not None:
        name, arguments = answer.tool
        block = {"type": "tool_use", "id": f"call-{number}", "name": name, "input": {}}
        yield _event({"type": "content_block_start", "index": 1, "content_block": block})
        half = len(arguments) // 2
        for part in (arguments[:half], arguments[half:]):
            yield _event(_anthropic_delta(1, {"type": "input_json_delta", "partial_json": part}))
        yield _event({"type": "content_block_stop", "index": 1})
    reason = "end_turn" if answer.tool is None else "tool_use"
    yield _event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
    yield _event({"type": "message_stop"})


def _anthropic_delta(index: int, delta: dict[str, str]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _data(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def _event(content: dict[str, Any]) -> bytes:
    return f"event: {content['type']}\n".encode() + _data(content)
