"""A forced tool that the target cannot have ends the request. It is never left out, whatever the policy is."""

from typing import Any

import pytest

from shared.schemas.chat import StoredRequest
from tests.fakes import FakeProvider
from tests.fakes.answer import Answer
from tests.provider_client import NETWORK, Make, failure
from tests.system import System

USER: list[Any] = [{"role": "user", "content": "hi"}]
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
CUSTOM = {"type": "custom", "custom": {"name": "patch"}}
MESSAGES: dict[str, Any] = {"max_tokens": 9, "messages": USER, "tools": [SEARCH]}
HOSTED: dict[str, Any] = {"input": "hi", "tools": [{"type": "web_search"}]}
ALLOWED = {"mode": "required", "tools": [CUSTOM]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("messages", MESSAGES | {"tool_choice": {"type": "tool", "name": "web_search"}}),
    ("messages", MESSAGES | {"tool_choice": {"type": "any"}}),
    ("chat/completions", {"messages": USER, "tools": [CUSTOM, FUNCTION], "tool_choice": CUSTOM}),
    ("chat/completions", {"messages": USER, "tools": [CUSTOM], "tool_choice": "required"}),
    (
        "chat/completions",
        {
            "messages": USER,
            "tools": [CUSTOM, FUNCTION],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED},
        },
    ),
    ("responses", HOSTED | {"tool_choice": {"type": "web_search"}}),
    ("responses", HOSTED | {"tool_choice": "required"}),
    (
        "responses",
        HOSTED | {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}},
    ),
]


@pytest.mark.parametrize(("route", "body"), CASES)
@pytest.mark.parametrize("policy", ["drop", "refuse"])
async def test_a_forced_tool_of_another_family_is_refused_before_queueing(
    system: System, route: str, body: dict[str, Any], policy: str
) -> None:
    other = "anthropic" if route == "chat/completions" else "openai"
    headers = {"X-Headrace-Unsupported-Fields": policy}
    for model in (f"{other}/forced", "ollama/forced", "demo/demo"):
        whole = {"model": model, **body}
        answer = await system.http.post(f"{system.url}/v1/{route}", json=whole, headers=headers)
        error = answer.json()["error"]
        assert answer.status_code == 400, answer.text
        assert error["message"].startswith("tool_choice: "), error
        assert error.get("code", "unsupported_field") == "unsupported_field"
        assert "drop" not in error["message"]
        assert "X-Stream-Id" not in answer.headers
    assert not [call for call in system.fake.calls if call.model == "forced"]


async def test_a_target_with_the_tool_is_used_instead(system: System) -> None:
    system.fake.play("has-tool", Answer(deltas=("{}",)))
    forced = {"tool_choice": {"type": "tool", "name": "web_search"}}
    body = MESSAGES | forced | {"model": "openai/has-none", "fallbacks": ["anthropic/has-tool"]}
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert answer.json()["content"][0]["name"] == "web_search", answer.text
    assert {call.model for call in system.fake.calls} & {"has-none", "has-tool"} == {"has-tool"}


async def test_an_optional_tool_of_another_family_is_left_out_and_named(system: System) -> None:
    system.fake.play("optional", Answer())
    body = MESSAGES | {"model": "openai/optional", "tool_choice": {"type": "auto"}}
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Headrace-Ignored"] == "tools.0"


@pytest.mark.parametrize("name", [*NETWORK, "demo"])
async def test_a_worker_refuses_it_too(fake: FakeProvider, make: Make, name: str) -> None:
    """A request that was queued before may arrive at a worker, or at a fallback."""
    family = "anthropic" if name == "responses" else "responses"
    original = {"family": family, "body": {}, "forced": "tool_choice"}
    fields = {"model": "m", "messages": USER, "unsupported_fields": "drop", "original": original}
    error = await failure(make(name), StoredRequest.model_validate(fields))
    assert (error.code, error.param) == ("unsupported_field", "tool_choice")
    assert not fake.calls
