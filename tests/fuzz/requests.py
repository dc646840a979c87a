"""Targets: requests in all dialects, cursors and ids."""

from collections.abc import Callable
from typing import Any, Final

from gateway.api.previous_responses import stream_id_of
from gateway.api.tickets import TicketRequest
from gateway.dialects.ai_sdk import request as ai_sdk
from gateway.dialects.anthropic import request as anthropic
from gateway.dialects.openai_chat import request as openai_chat
from gateway.dialects.openai_responses import request as openai_responses
from shared.broker.stream_index import parse_page
from shared.errors import InvalidJson, InvalidLastEventId, RequestError
from shared.protocol.ids import parse_cursor
from shared.schemas import ChatRequest, parse_chat_request
from shared.schemas.chat import parse_body
from tests.fuzz.target import Target, from_json, from_text

_MOST_MESSAGE: Final = 4000
_IMAGE: Final = "data:image/png;base64,iVBORw0KGgo="
_SCHEMA: Final = {
    "type": "object",
    "$defs": {"a": {"pattern": "(a|b)*c", "enum": [1]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
    "properties": {"x": {"$ref": "#/$defs/b"}, "y": {"type": "array", "items": {"type": "integer"}}},
    "required": ["x"],
    "additionalProperties": False,
}
_FUNCTION: Final = {"name": "f", "description": "d", "parameters": _SCHEMA, "strict": True}
_OURS: Final = {"provider": "openai", "fallbacks": ["a/b"], "grace_s": 1, "on_disconnect": "continue"}
_MESSAGES: Final = [
    {"role": "system", "content": "x"},
    {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": _IMAGE}}]},
    {
        "role": "assistant",
        "content": "y",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "x"},
]
_CHAT: Final = {
    **_OURS,
    "model": "m",
    "messages": _MESSAGES,
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 5,
    "stop": ["x"],
    "tools": [{"type": "function", "function": _FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA, "strict": True}},
    "metadata": {"a": "b"},
    "reasoning_effort": "low",
}
_NATIVE: Final = {**_CHAT, "on_worker_lost": "restart", "on_provider_lost": "continue"}
_OPENAI: Final = {**_CHAT, "stream": True, "stream_options": {"include_usage": True}, "n": 1, "user": "u", "seed": 1}
_ANTHROPIC: Final = {
    **_OURS,
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": _SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": _SCHEMA}},
    "stop_sequences": ["x"],
    "stream": True,
}
_RESPONSES: Final = {
    **_OURS,
    "model": "m",
    "instructions": "x",
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": _IMAGE}],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "item_reference", "id": "msg_a"},
        {"type": "reasoning", "id": "rs_a", "summary": []},
    ],
    "tools": [{"type": "function", **_FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA}},
    "reasoning": {"effort": "low"},
    "max_output_tokens": 5,
    "previous_response_id": "resp_" + "a3" + "0" * 32,
    "stream": True,
    "background": False,
    "store": True,
}
_REFERRED: Final = {"msg_a": {"type": "message", "role": "assistant", "content": "z"}}
_AI_SDK: Final = {
    "id": "chat-1",
    "trigger": "submit-message",
    "messageId": "m1",
    "model": "openai/m",
    "system": "x",
    "messages": [
        {
            "id": "m1",
            "role": "user",
            "parts": [{"type": "text", "text": "x"}, {"type": "file", "mediaType": "image/png", "url": _IMAGE}],
        },
        {
            "id": "m2",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "text", "text": "y"},
                {"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": {"a": 1}},
                {
                    "type": "dynamic-tool",
                    "toolName": "f",
                    "toolCallId": "d",
                    "state": "output-error",
                    "errorText": "e",
                },
            ],
        },
    ],
}


def _check(request: ChatRequest) -> None:
    """Check that a worker can parse what the gateway stores."""
    stored = request.model_dump_json(exclude_none=True).encode()
    assert parse_chat_request(stored) == request
    assert request.prompt_characters >= 0


def _parser(parse: Callable[[bytes], ChatRequest]) -> Callable[[bytes], None]:
    def run(body: bytes) -> None:
        try:
            request = parse(body)
        except RequestError as error:
            assert 0 < len(error.message) <= _MOST_MESSAGE
            error.message.encode()
            raise
        _check(request)

    return run


def _responses(body: bytes) -> ChatRequest:
    openai_responses.previous_of(body)
    openai_responses.references_of(body)
    return openai_responses.parse(body, [{"role": "user", "content": "before"}], _REFERRED)[0]


def _ticket(body: bytes) -> None:
    ticket_request = parse_body(TicketRequest, body)
    assert ticket_request.life_s is None or ticket_request.life_s >= 1


def _cursor(text: str) -> None:
    epoch, seq = parse_cursor(text)
    assert 0 <= epoch < 10**15
    assert 0 <= seq < 10**15


def _page(text: str) -> None:
    page = parse_page(text)
    assert page is None or 0 <= page[0] < 10**16


def _response_id(text: str) -> None:
    assert text.endswith(stream_id_of(text))


def _request(name: str, parse: Callable[[bytes], ChatRequest], sample: Any) -> Target:
    small = {key: sample[key] for key in ("model", "messages", "input", "max_tokens", "id") if key in sample}
    return Target(name, from_json(sample, sample, small), _parser(parse), (RequestError,))


REQUESTS: Final = (
    _request("request", parse_chat_request, _NATIVE),
    _request("openai-chat", lambda body: openai_chat.parse(body)[0], _OPENAI),
    _request("anthropic", lambda body: anthropic.parse(body)[0], _ANTHROPIC),
    _request("anthropic-count", lambda body: anthropic.parse(body, only_count=True)[0], _ANTHROPIC),
    _request("openai-responses", _responses, _RESPONSES),
    _request("ai-sdk", lambda body: ai_sdk.parse(body, "openai/m")[0], _AI_SDK),
    Target("ticket-request", from_json({"life_s": 60, "may_cancel": True}, {}), _ticket, (RequestError, InvalidJson)),
    Target("cursor", from_text("3-42", "0-0", "-1", "1700000000000-5"), _cursor, (InvalidLastEventId,)),
    Target("page", from_text("1700000000000-a3" + "0" * 32, "1-a"), _page),
    Target("response-id", from_text("resp_a3" + "0" * 32), _response_id, (RequestError,)),
)
