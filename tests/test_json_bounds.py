"""A request whose JSON no provider could get, or that would fill a gateway, is refused before it is queued."""

import json
from typing import Any, Final

import pytest

from shared.schemas.json_bounds import MAX_DEPTH, MAX_VALUES, check_value_count, check_values
from tests.system import System

USER: Final = {"role": "user", "content": "hi"}
CHAT: Final[dict[str, Any]] = {"model": "openai/bounds", "messages": [USER]}
#: Place of a value that goes to the provider as it is, in each dialect.
PLACES: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": CHAT | {"later": "@"},
    "/v1/messages": CHAT | {"model": "anthropic/bounds", "max_tokens": 9, "later": "@"},
    "/v1/responses": {"model": "openai/bounds", "input": "hi", "later": "@"},
    "/chat": CHAT | {"provider_options": {"openai": {"later": "@"}}},
    "/api/chat": {
        "id": "bounds",
        "model": "openai/bounds",
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
        "provider_options": {"openai": {"later": "@"}},
    },
    "/ag-ui": {
        "threadId": "bounds",
        "runId": "bounds",
        "messages": [USER],
        "forwardedProps": {"model": "openai/bounds", "provider_options": {"openai": {"later": "@"}}},
    },
}
VALUES: Final = {
    "NaN": "NaN",
    "infinity": "-Infinity",
    "a number that overflows": "1e999",
    "deep lists": "[" * 150 + "]" * 150,
    "deep objects": '{"$":' * 150 + "1" + "}" * 150,
    "many lists": "[" + "[]," * MAX_VALUES + "0]",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("path", PLACES)
async def test_json_that_no_provider_could_get_is_refused(wire_system: System, path: str, value: str) -> None:
    body = json.dumps(PLACES[path]).replace('"@"', value).encode()
    headers = {"Content-Type": "application/json"}
    answer = await wire_system.http.post(wire_system.url + path, content=body, headers=headers)
    assert answer.status_code in {400, 422}, answer.text
    assert "internal" not in answer.text
    assert not [call for call in wire_system.fake.calls if call.model == "bounds"]


@pytest.mark.parametrize("name", ["$", "a"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_the_deepest_accepted_request_reaches_the_provider(wire_system: System, path: str, name: str) -> None:
    """A stored request adds levels, and escapes a member that is named as its references are."""
    body, model = PLACES[path], f"deepest-{name}-{path.rpartition('/')[2]}"
    deep: Any = 1
    for _ in range(MAX_DEPTH - 4):
        deep = {name: deep}
    schema = {"type": "object"}
    function = {"type": "function", "function": {"name": "t", "parameters": schema}}
    tool: dict[str, Any] = {"name": "t", "input_schema": schema} if path == "/v1/messages" else function
    tool["cache_control"] = deep
    changes = {"model": body["model"].replace("bounds", model), "tools": [tool], "later": deep}
    await wire_system.http.post(wire_system.url + path, json=body | changes)
    (call,) = [call for call in wire_system.fake.calls if call.model == model]
    assert call.request["later"] == deep
    assert call.request["tools"] == [tool]


def test_values_are_counted_outside_of_texts() -> None:
    text = ("[,{" * MAX_VALUES, r"\"," * MAX_VALUES, "\\\\" * 9 + ",", "")
    check_value_count(json.dumps(text).encode())
    check_value_count(json.dumps(["\\", "[" * MAX_VALUES * 2]).encode())
    for crowded in (b"1," * MAX_VALUES, b'"a",' * MAX_VALUES, b'{"a":{}},' * MAX_VALUES, rb'"\\",' * MAX_VALUES):
        with pytest.raises(ValueError, match="values"):
            check_value_count(b"[" + crowded + b"0,0]")


def test_depth_is_counted_in_levels() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    check_values(deep)
    with pytest.raises(ValueError, match="levels"):
        check_values([deep])
