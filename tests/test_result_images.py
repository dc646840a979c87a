"""An image that a tool returned reaches the provider from every dialect, and requests are counted as they came."""

import json
from typing import Any, Final

import pytest

from tests.fakes.answer import Answer, Call
from tests.system import System

PIXEL: Final = "R0lGODlhAQABAAAAACwAAAAAAQABAAA="
URL: Final = f"data:image/gif;base64,{PIXEL}"
SCHEMA: Final = {"type": "object", "properties": {}}
FUNCTION: Final = {"name": "look", "arguments": "{}"}
QUESTION: Final = {"role": "user", "content": "look"}
SOURCE: Final = {"type": "base64", "media_type": "image/gif", "data": PIXEL}
Body = dict[str, Any]


def native() -> tuple[str, Body]:
    image = {"type": "image_url", "image_url": {"url": URL}}
    turns = [
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "seen"}, image]},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    return "/chat", {"messages": turns, "tools": tools}


def chat() -> tuple[str, Body]:
    return "/v1/chat/completions", native()[1]


def messages() -> tuple[str, Body]:
    result = [{"type": "text", "text": "seen"}, {"type": "image", "source": SOURCE}]
    turns = [
        QUESTION,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": result}]},
    ]
    tools = [{"name": "look", "input_schema": SCHEMA}]
    return "/v1/messages", {"messages": turns, "tools": tools, "max_tokens": 9}


def responses() -> tuple[str, Body]:
    output = [{"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": URL}]
    items = [
        QUESTION,
        {"type": "function_call", "call_id": "c1", **FUNCTION},
        {"type": "function_call_output", "call_id": "c1", "output": output},
    ]
    return "/v1/responses", {"input": items, "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}]}


def ui() -> tuple[str, Body]:
    image = {"type": "media", "mediaType": "image/gif", "data": PIXEL}
    output = {"type": "content", "value": [{"type": "text", "text": "seen"}, image]}
    done = {"type": "tool-look", "toolCallId": "c1", "state": "output-available", "input": {}, "output": output}
    question = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "look"}]}
    turns = [question, {"id": "2", "role": "assistant", "parts": [{"type": "step-start"}, done]}]
    return "/api/chat", {"messages": turns, "tools": native()[1]["tools"]}


async def sent(system: System, dialect: Any, provider: str) -> list[Body]:
    """Return the messages that the provider got after the question."""
    model = f"image-{dialect.__name__}-{provider}"
    system.fake.play(model, Answer(deltas=("a dot",)))
    path, body = dialect()
    if dialect is ui:
        body["id"] = model
    answer = await system.http.post(f"{system.url}{path}", json={**body, "model": f"{provider}/{model}"})
    assert answer.status_code in (200, 202), answer.text
    await system.ended(answer.headers["x-stream-id"])
    (call,) = calls_of(system, model)
    turns: list[Body] = call.request["messages"]
    return turns[1:]


def calls_of(system: System, model: str) -> list[Call]:
    return [call for call in system.fake.calls if call.model == model]


@pytest.mark.parametrize("dialect", [native, chat, messages, responses, ui])
async def test_anthropic_gets_it_in_the_result(system: System, dialect: Any) -> None:
    made, answered = await sent(system, dialect, "anthropic")
    (use,), (result,) = made["content"], answered["content"]
    assert (use["type"], result["type"]) == ("tool_use", "tool_result")
    assert use["id"] == result["tool_use_id"]
    assert result["content"] == [{"type": "text", "text": "seen"}, {"type": "image", "source": SOURCE}]


@pytest.mark.parametrize("dialect", [native, chat, messages, responses, ui])
async def test_openai_gets_it_after_the_result(system: System, dialect: Any) -> None:
    made, result, image = await sent(system, dialect, "openai")
    assert made["tool_calls"][0]["id"] == result["tool_call_id"]
    assert result["content"] in ("seen", [{"type": "text", "text": "seen"}])
    assert image["role"] == "user"
    images = [part["image_url"]["url"] for part in image["content"] if part["type"] == "image_url"]
    assert images == [URL]


async def test_tokens_of_an_original_are_counted_with_all_that_it_has(system: System) -> None:
    body = {
        "model": "anthropic/m-counts",
        "messages": [{"role": "user", "content": [{"type": "future_block", "value": [1.5, None]}]}],
        "system": [{"text": "a", "type": "text", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "context_management": {"edits": []},
        "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "m"}],
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "field_of_tomorrow": {"b": 1, "a": 2},
    }
    headers = {"anthropic-beta": "context-management-2025-06-27", "anthropic-version": "2023-06-01"}
    own = {"fallbacks": ["anthropic/other"], "stream": True}
    url = f"{system.url}/v1/messages/count_tokens"
    answer = await system.http.post(url, json={**body, **own}, headers=headers)
    assert answer.status_code == 200, answer.text
    counted = [(sent, got) for sent, got in system.fake.counted if sent["model"] == "m-counts"]
    ((sent, got),) = counted
    assert json.dumps(sent) == json.dumps({**body, "model": "m-counts"})
    assert {name: got[name] for name in headers} == headers
    assert answer.json()["input_tokens"] == len(json.dumps(body["messages"]).split())
    assert "x-headrace-estimated" not in answer.headers


async def test_tokens_of_another_dialect_are_counted_without_what_the_route_lacks(system: System) -> None:
    body = {"model": "anthropic/m-counts-other", "input": "hi", "max_output_tokens": 9, "temperature": 0.5}
    answer = await system.http.post(f"{system.url}/v1/responses/input_tokens", json=body)
    assert answer.status_code == 200, answer.text
    (counted,) = [sent for sent, _ in system.fake.counted if sent["model"] == "m-counts-other"]
    assert counted == {"model": "m-counts-other", "messages": [{"role": "user", "content": "hi"}]}
