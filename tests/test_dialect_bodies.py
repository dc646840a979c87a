"""Each value of every dialect's request is replaced by odd ones: the request is refused clearly, or can be sent to
every provider. The refusal repeats no content."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any, Final

import pytest

from gateway.dialects.ag_ui import request as run_request
from gateway.dialects.ai_sdk import request as ui_message_request
from gateway.dialects.anthropic import request as anthropic_request
from gateway.dialects.openai_chat import request as openai_chat_request
from gateway.dialects.openai_responses import request as responses_request
from gateway.dialects.reasoning import pack
from shared.errors import InvalidJson, InvalidRequest, ProviderError
from shared.schemas import ChatRequest, parse_chat_request
from workers.providers import anthropic_request as to_anthropic
from workers.providers import ollama_request as to_ollama
from workers.providers.openai_repairs import OpenAINames
from workers.providers.openai_request import body_of as openai_body_of

SAID: Final = "what-was-said"
ODD: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 0.5, 10**30, "", "odd", "\ud800", "\0", [], [None], [[]], ["odd"], {}, {"type": []}),
    *({"type": "odd"}, {"odd": {}}, [{}], [{"type": {}}]),
)
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Final = {"name": "weather", "description": SAID, "parameters": SCHEMA, "strict": True}
IMAGE: Final = "data:image/png;base64,AAAA"
ARGUMENTS: Final = json.dumps({"city": SAID})

CHAT: Final = {
    "model": "gpt-5",
    "messages": [
        {"role": "system", "content": SAID},
        {
            "role": "user",
            "content": [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": IMAGE}}],
        },
        {
            "role": "assistant",
            "content": SAID,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": SAID},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
    "reasoning_effort": "low",
    "stop": ["END"],
    "temperature": 1,
    "top_p": 0.5,
    "metadata": {"a": "b"},
}
COMPLETION: Final = {
    **CHAT,
    "max_completion_tokens": 10,
    "stream": True,
    "stream_options": {"include_usage": True},
    "n": 1,
    "logit_bias": {},
    "user": SAID,
}
RESPONSE: Final = {
    "model": "gpt-5",
    "instructions": SAID,
    "input": [
        {"role": "developer", "content": SAID},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": SAID},
                {"type": "input_image", "image_url": IMAGE, "detail": "low"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": SAID, "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "c1", "output": SAID},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "weather"},
    "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
    "reasoning": {"effort": "low"},
    "max_output_tokens": 10,
    "stream": True,
    "background": True,
    "store": True,
    "metadata": {"a": "b"},
}
MESSAGE: Final = {
    "model": "claude",
    "max_tokens": 10,
    "system": [{"type": "text", "text": SAID, "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": SAID},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://localhost/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": SAID, "signature": "s"},
                {"type": "text", "text": SAID},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": SAID}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": SAID}]}],
        },
    ],
    "tools": [{"name": "weather", "description": SAID, "input_schema": SCHEMA, "strict": True}],
    "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5000},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["END"],
    "stream": True,
    "metadata": {"user_id": SAID},
}
UI_MESSAGES: Final = {
    "id": "chat-1",
    "model": "gpt-5",
    "system": SAID,
    "trigger": "submit-message",
    "messageId": "m2",
    "messages": [
        {
            "id": "m1",
            "role": "user",
            "parts": [
                {"type": "text", "text": SAID, "providerMetadata": {"anthropic": {"cacheControl": {}}}},
                {"type": "file", "mediaType": "image/png", "url": IMAGE},
                {"type": "file", "mediaType": "a/b", "filename": SAID, "url": "data:a/b;base64,AAAA"},
            ],
        },
        {
            "id": "m2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": SAID, "providerMetadata": {"anthropic": {"signature": SAID}}},
                {"type": "text", "text": SAID, "providerMetadata": {"google": {"thoughtSignature": SAID}}},
                {
                    "type": "tool-weather",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": {"city": SAID},
                    "output": {"type": "content", "value": [{"type": "image-url", "url": IMAGE}]},
                    "callProviderMetadata": {"headrace": {"openai": {"extra_content": {}}}},
                },
                {
                    "type": "dynamic-tool",
                    "toolName": "weather",
                    "toolCallId": "c2",
                    "state": "output-error",
                    "input": {"city": SAID},
                    "errorText": SAID,
                },
            ],
        },
    ],
}
RUN_INPUT: Final[dict[str, Any]] = {
    "threadId": "t",
    "runId": "r",
    "protocolVersion": "1.0",
    "messages": [
        {"id": "1", "role": "developer", "content": SAID},
        {
            "id": "2",
            "role": "user",
            "content": [
                {"type": "text", "text": SAID},
                {"type": "image", "source": {"type": "url", "value": IMAGE}},
                {"type": "document", "source": {"type": "data", "value": "AAAA", "mimeType": "application/pdf"}},
                {"type": "binary", "mimeType": "image/png", "data": "AAAA", "filename": "a.png"},
            ],
        },
        {"id": "3", "role": "reasoning", "content": SAID, "encryptedValue": pack("openai", {"reasoning": SAID})},
        {
            "id": "4",
            "role": "assistant",
            "content": SAID,
            "toolCalls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
            ],
        },
        {"id": "5", "role": "tool", "toolCallId": "c1", "content": [{"type": "text", "text": SAID}], "error": SAID},
    ],
    "tools": [{"name": "weather", "description": SAID, "parameters": {"type": "object"}}],
    "context": [{"description": SAID, "value": SAID}],
    "forwardedProps": {"model": "m", "temperature": 1, "provider_options": {"openai": {"x": SAID}}},
}
DIALECTS: Final[dict[str, tuple[Any, Callable[[bytes], Any]]]] = {
    "chat": (CHAT, lambda body: (parse_chat_request(body),)),
    "chat_completions": (COMPLETION, openai_chat_request.parse),
    "responses": (RESPONSE, lambda body: responses_request.parse(body, [], {})),
    "messages": (MESSAGE, anthropic_request.parse),
    "count_tokens": (MESSAGE, lambda body: anthropic_request.parse(body, only_count=True)),
    "ui_messages": (UI_MESSAGES, lambda body: ui_message_request.parse(body, None)),
    "ag_ui": (RUN_INPUT, lambda body: run_request.parse(body, None)),
}
to_openai: Final = partial(openai_body_of, limit="max_tokens", names=OpenAINames.at("api.mistral.ai"))


def places(node: Any) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in ``node``, except itself."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inside:
        yield (name,)
        yield from ((name, *place) for place in places(value))


def changed(body: Any, place: tuple[str | int, ...]) -> Iterator[Any]:
    """Yield the body with each odd value at this path, and without the path."""
    copy = deepcopy(body)
    *way, last = place
    holder = copy
    for step in way:
        holder = holder[step]
    for odd in ODD:
        holder[last] = odd
        yield copy
    del holder[last]
    yield copy


def send_to_every_provider(request: ChatRequest) -> None:
    """Convert the request for every provider. A provider may refuse it."""
    for body_of in (to_anthropic.body_of, to_ollama.body_of, to_openai):
        with suppress(ProviderError):
            json.dumps(body_of(request), ensure_ascii=False).encode()


def refusal_of(parse: Callable[[bytes], Any], body: Any) -> str | None:
    """Return the refusal, or None if the request is accepted and can be sent."""
    try:
        send_to_every_provider(parse(json.dumps(body).encode())[0])
    except (InvalidRequest, InvalidJson) as refusal:
        return refusal.message
    return None


@pytest.mark.parametrize("name", DIALECTS)
def test_an_odd_value_is_refused_by_name_or_can_be_sent(name: str) -> None:
    body, parse = DIALECTS[name]
    assert refusal_of(parse, body) is None
    for place in places(body):
        for odd in changed(body, place):
            try:
                refusal = refusal_of(parse, odd)
            except Exception as error:
                raise AssertionError(f"{place}: {error!r}") from error
            assert refusal != ""
            assert SAID not in (refusal or "")
