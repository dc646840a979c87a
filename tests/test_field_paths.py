"""Errors name the field of the client's own request, in every dialect."""

from typing import Any

import pytest

from tests.system import System

USER = {"role": "user", "content": "hi"}
NO_NAME = {"type": "text", "text": 7}
MESSAGES: dict[str, Any] = {"model": "demo/demo", "max_tokens": 9, "messages": [USER]}
RESPONSES: dict[str, Any] = {"model": "demo/demo", "input": "hi"}
CHAT: dict[str, Any] = {"model": "demo/demo", "messages": [USER]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"system": 7}, "system"),
        ({"system": [NO_NAME]}, "system.0.text"),
        ({"messages": [USER, {"role": "user", "content": [NO_NAME]}]}, "messages.1.content.0.text"),
        (
            {
                "system": "a",
                "messages": [
                    USER,
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": 7, "content": "a"}, NO_NAME]},
                ],
            },
            "messages.1.content.0.tool_use_id",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": 7}]}]},
            "messages.1.content.0.name",
        ),
        ({"tools": [{"name": "a", "input_schema": 7}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "a", "description": 7, "input_schema": {}}]}, "tools.0.description"),
        ({"stop_sequences": [7]}, "stop_sequences.0"),
    ],
)
async def test_messages(system: System, body: dict[str, Any], field: str) -> None:
    answer = await system.http.post(f"{system.url}/v1/messages", json=MESSAGES | body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(f"{field}:"), answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"instructions": 7}, "instructions"),
        ({"input": []}, "input"),
        ({"instructions": "a", "input": [USER, {"role": "user", "content": 7}]}, "input.1.content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 7}]}]}, "input.0.content.0.text"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0.image_url",
        ),
        (
            {
                "input": [
                    USER,
                    {"type": "function_call", "call_id": "a", "name": "one", "arguments": "{}"},
                    {"type": "function_call", "call_id": "b", "name": 7, "arguments": "{}"},
                ]
            },
            "input.2.name",
        ),
        ({"input": [{"type": "function_call_output", "call_id": 7, "output": "a"}]}, "input.0.call_id"),
        ({"tools": [{"type": "function", "name": "a", "description": 7}]}, "tools.0.description"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_responses(system: System, body: dict[str, Any], field: str) -> None:
    answer = await system.http.post(f"{system.url}/v1/responses", json=RESPONSES | body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(f"{field}:"), answer.text
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [({"max_completion_tokens": 0}, "max_completion_tokens"), ({"max_tokens": 0}, "max_tokens")],
)
async def test_chat_completions(system: System, body: dict[str, Any], field: str) -> None:
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=CHAT | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text
