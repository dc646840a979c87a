"""Chunks of Chat Completions, as structures that are fast to decode.

Members have any type, because servers differ in them.
"""

from typing import Any, Final

import msgspec


class Function(msgspec.Struct):
    name: Any = None
    arguments: Any = None


class ToolCall(msgspec.Struct):
    index: Any = None
    id: Any = None
    function: Function | None = None
    type: Any = None
    custom: Any = None
    extra_content: Any = None  # Gemini's place for thought signatures


class Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    # No official member: DeepSeek and its followers use the first name, vLLM and OpenRouter the second.
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    reasoning_details: Any = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    annotations: Any = None


class Choice(msgspec.Struct):
    index: Any = None
    delta: Delta | None = None
    message: Delta | None = None  # of a server that does not stream
    finish_reason: Any = None
    usage: Any = None
    error: Any = None
    logprobs: Any = None


class Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Any = None
    timings: Any = None
    error: Any = None
    system_fingerprint: Any = None
    service_tier: Any = None


decoder: Final = msgspec.json.Decoder(Chunk)
