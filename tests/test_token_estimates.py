"""The same conversation has the same estimate in every dialect, and nothing that a model reads is free."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from gateway.dialects.ai_sdk import request as ui
from gateway.dialects.anthropic import request as messages
from gateway.dialects.openai_chat import request as chat
from gateway.dialects.openai_responses import request as responses
from gateway.dialects.reasoning import pack
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_chat_request
from tests.fakes.answer import Answer
from tests.system import System

PIXEL: Final = "R0lGODlhAQABAAAAACwAAAAAAQABAAA="
URL: Final = f"data:image/gif;base64,{PIXEL}"
SCHEMA: Final = {"type": "object", "properties": {"path": {"type": "string", "description": "Größe"}}}
SIGNED: Final = {"type": "thinking", "thinking": "I should look.", "signature": "c2ln" * 300}
PACKED: Final = pack("anthropic", {"blocks": [SIGNED]})
ARGUMENTS: Final = {"path": "ä.png"}
DETAIL: Final = {"type": "reasoning.encrypted", "data": PACKED, "format": "headrace-v1", "index": 0}

Body = dict[str, Any]


def native() -> Body:
    call = {"id": "c1", "function": {"name": "look", "arguments": json.dumps(ARGUMENTS, ensure_ascii=False)}}
    image = {"type": "image_url", "image_url": {"url": URL}}
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look."}, image]},
            {
                "role": "assistant",
                "content": "A moment.",
                "tool_calls": [{"type": "function", **call}],
                "extra": {"anthropic": {"blocks": [SIGNED]}},
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "seen"}, image]},
            {"role": "user", "content": "Go on."},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}],
    }


def in_chat() -> Body:
    body = native()
    del body["messages"][2]["extra"]
    body["messages"][2] |= {"reasoning_content": "I should look.", "reasoning_details": [DETAIL]}
    settings = {"reasoning_effort": "low", "user": "u" * 200, "metadata": {"session": "s" * 200}, "verbosity": "low"}
    return body | settings


def in_messages() -> Body:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": PIXEL}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "seen"}, image]}
    return {
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look."}, image]},
            {
                "role": "assistant",
                "content": [
                    SIGNED,
                    {"type": "text", "text": "A moment."},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": ARGUMENTS},
                ],
            },
            {"role": "user", "content": [result, {"type": "text", "text": "Go on."}]},
        ],
        "tools": [{"name": "look", "description": "d", "input_schema": SCHEMA}],
        "metadata": {"user_id": "u" * 200},
        "thinking": {"type": "adaptive", "display": "summarized"},
    }


def in_responses() -> Body:
    image = {"type": "input_image", "image_url": URL, "detail": "auto"}
    call: Body = {"type": "function_call", "call_id": "c1", "name": "look", "status": "completed", "id": "fc_1"}
    output = {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": "seen"}, image],
    }
    text = {"type": "output_text", "text": "A moment.", "annotations": []}
    summary = [{"type": "summary_text", "text": "I should look."}]
    return {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Look."}, image]},
            {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": PACKED},
            {"type": "message", "role": "assistant", "id": "m_1", "status": "completed", "content": [text]},
            call | {"arguments": json.dumps(ARGUMENTS, ensure_ascii=False)},
            output,
            {"role": "user", "content": "Go on."},
        ],
        "tools": [{"type": "function", "name": "look", "description": "d", "parameters": SCHEMA}],
        "prompt_cache_key": "k" * 200,
    }


def in_ui() -> Body:
    image = {"type": "file", "url": URL, "mediaType": "image/gif"}
    output = {"type": "content", "value": [{"type": "text", "text": "seen"}, image]}
    file = {"type": "file", "mediaType": "image/gif", "url": URL}
    metadata = {"headrace": {"reasoning": PACKED}}
    answer = [
        {"type": "step-start"},
        {"type": "reasoning", "text": "I should look.", "providerMetadata": metadata},
        {"type": "text", "text": "A moment."},
        {"type": "tool-look", "toolCallId": "c1", "state": "output-available", "input": ARGUMENTS, "output": output},
    ]
    return {
        "id": "chat",
        "system": "Be brief.",
        "messages": [
            {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Look."}, file]},
            {"id": "2", "role": "assistant", "parts": answer},
            {"id": "3", "role": "user", "parts": [{"type": "text", "text": "Go on."}]},
        ],
        "tools": native()["tools"],
    }


PARSERS: Final[dict[str, tuple[Callable[[], Body], Callable[[bytes], ChatRequest]]]] = {
    "chat": (in_chat, lambda body: chat.parse(body)[0]),
    "messages": (in_messages, lambda body: messages.parse(body)[0]),
    "responses": (in_responses, lambda body: responses.parse(body, [])[0]),
    "ui": (in_ui, lambda body: ui.parse(body, None)[0]),
}


def characters(parse: Callable[[bytes], ChatRequest], body: Body) -> int:
    return parse(json.dumps({"model": "openai/some-model", **body}).encode()).prompt_characters


@pytest.mark.parametrize("dialect", PARSERS)
def test_a_conversation_counts_the_same_in_every_dialect(dialect: str) -> None:
    make, parse = PARSERS[dialect]
    assert characters(parse, make()) == characters(parse_chat_request, native())


def test_only_what_a_model_reads_counts() -> None:
    tool = json.dumps(native()["tools"][0], ensure_ascii=False)
    texts = "".join(["Be brief.", "Look.", "I should look.", "A moment.", '{"path": "ä.png"}', "seen", "Go on."])
    assert characters(parse_chat_request, native()) == len(texts) + len(tool) + 2 * 4000


LONG: Final = "word " * 20_000
UNKNOWN: Final[dict[str, tuple[str, Body]]] = {
    "a field": ("chat", {"documents": [{"body": LONG}]}),
    "fields of templates": ("chat", {"chat_template_kwargs": {"type": LONG}}),
    "reasoning": ("chat", {"messages": [{"role": "assistant", "content": "", "reasoning_content": LONG}]}),
    "a block": ("messages", {"messages": [{"role": "user", "content": [{"type": "new", "value": LONG}]}]}),
    "a tool of the provider": ("messages", {"tools": [{"type": "new_1", "name": "n", "instructions": LONG}]}),
    "thinking": ("messages", {"messages": [{"role": "assistant", "content": [SIGNED | {"thinking": LONG}]}]}),
    "a label": ("messages", {"messages": [{"role": "user", "content": [{"type": "new", "name": LONG}]}]}),
    "an item": ("responses", {"input": [{"type": "new", "text": LONG}]}),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_long_text_counts_wherever_it_is(case: str) -> None:
    dialect, fields = UNKNOWN[case]
    make, parse = PARSERS[dialect]
    user = {"role": "user", "content": "hi"}
    fields = fields | ({"messages": [*fields["messages"], user]} if "messages" in fields else {})
    assert len(LONG) <= characters(parse, make() | fields) < len(LONG) + 10_000


@pytest.mark.parametrize(
    "options", [{"openai": {"documents": [LONG]}}, {"anthropic": {"mcp_servers": [{"a": LONG}]}}]
)
def test_options_of_a_provider_count_too(options: Body) -> None:
    known = characters(parse_chat_request, native())
    assert characters(parse_chat_request, native() | {"provider_options": options}) == known + len(LONG)


async def test_the_routes_that_count_tokens_agree(system: System) -> None:
    """The native API has no such route: its number is the estimate of an answer without usage."""
    system.fake.play("estimated", Answer(usage=None))
    model = "openai/estimated"
    counts = []
    for route, body in (("messages/count_tokens", in_messages()), ("responses/input_tokens", in_responses())):
        answer = await system.http.post(f"{system.url}/v1/{route}", json={"model": model, **body})
        counts.append(answer.json()["input_tokens"])
    for route, body in (("chat", native()), ("v1/chat/completions", in_chat())):
        answer = await system.http.post(f"{system.url}/{route}", json={"model": model, **body})
        ended = await system.ended(answer.headers["x-stream-id"])
        usage: Any = ended["usage"]
        counts.append(usage["input_tokens"])
    assert counts == [-(-characters(parse_chat_request, native()) // 4)] * 4
