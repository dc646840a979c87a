"""Fields that a provider lacks are dropped and named, or the request is refused before it is queued."""

import json
from typing import Any

import pytest

from shared.provider_fields import loggable
from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, failure, parts_of
from tests.system import System
from workers.providers.base import IgnoredFields

USER = {"role": "user", "content": "hi"}
LOST: dict[str, Any] = {"model": "demo", "provider": "demo", "messages": [USER], "seed": 7}
REFUSE = {"X-Headrace-Unsupported-Fields": "refuse"}


async def test_a_lacking_field_is_left_out_and_named(fake: FakeProvider, make: Make) -> None:
    for name, fields in (("anthropic", {"frequency_penalty": 0.5, "seed": 7}), ("openai", {"top_k": 5})):
        parts = await parts_of(make(name), ask("echo", **fields))
        assert parts[0] == IgnoredFields(tuple(sorted(fields)))
        assert not fields.keys() & fake.calls[-1].request.keys()


async def test_a_value_without_effect_is_not_named(make: Make) -> None:
    parts = await parts_of(make("anthropic"), ask("echo", frequency_penalty=0, presence_penalty=0))
    assert not isinstance(parts[0], IgnoredFields)


async def test_refuse_fails_before_the_call(fake: FakeProvider, make: Make) -> None:
    error = await failure(make("anthropic"), ask("echo", seed=7, unsupported_fields="refuse"))
    assert (error.code, error.retryable, error.param) == ("unsupported_field", False, "seed")
    assert error.message.startswith("seed: ")
    assert not fake.calls


async def test_refuse_holds_for_a_field_that_only_the_server_refuses(fake: FakeProvider, make: Make) -> None:
    refusal = {"error": {"message": "Unsupported parameter: 'reasoning_effort'", "param": "reasoning_effort"}}
    fake.play("strict", Answer(status=400, error_body=refusal))
    error = await failure(make("openai"), ask("strict", reasoning_effort="low", unsupported_fields="refuse"))
    assert (error.code, error.param) == ("unsupported_field", "reasoning_effort")
    assert len(fake.calls) == 1


def test_only_public_names_are_logged() -> None:
    logged = loggable(["seed", "messages.2.content.0.cache_control", "alice@example.org", "tools.secret"])
    assert logged == {"ignored": ["seed", "messages.2.content.0.cache_control"], "unknown": 2}


async def test_dropped_fields_are_in_the_start_the_status_and_a_header(system: System) -> None:
    answer = await system.http.post(f"{system.url}/chat/stream", json=LOST | {"max_tokens": 3})
    assert answer.headers["X-Headrace-Ignored"] == "seed"
    start = next(line for line in answer.text.splitlines() if line.startswith("data: ") and '"attempt"' in line)
    assert json.loads(start.removeprefix("data: "))["ignored"] == ["seed"]
    status = await system.http.get(f"{system.url}/chat/{answer.headers['X-Stream-Id']}")
    assert status.json()["ignored"] == ["seed"]


@pytest.mark.parametrize("in_body", [True, False])
async def test_refuse_is_an_error_before_queueing(system: System, *, in_body: bool) -> None:
    body = LOST | ({"unsupported_fields": "refuse"} if in_body else {})
    answer = await system.http.post(f"{system.url}/chat", json=body, headers={} if in_body else REFUSE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unsupported_field")
    assert answer.json()["error"]["message"].startswith("seed: ")
    assert "X-Stream-Id" not in answer.headers


async def test_a_dialect_refuses_with_its_own_status(system: System) -> None:
    body = {"model": "demo/demo", "messages": [USER], "temperature": 0.5}
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=body, headers=REFUSE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_field")
    assert answer.json()["error"]["param"] == "temperature"
    answer = await system.http.post(f"{system.url}/v1/messages", json=body | {"max_tokens": 9}, headers=REFUSE)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_refuse_skips_targets_that_lack_a_field(system: System) -> None:
    system.fake.play("supports", Answer(deltas=["yes"]))
    body = LOST | {"fallbacks": ["openai/supports"], "unsupported_fields": "refuse"}
    answer = await system.http.post(f"{system.url}/chat/stream", json=body)
    assert '"provider":"openai"' in answer.text
    assert "yes" in answer.text


async def test_another_policy_is_refused(system: System) -> None:
    headers = {"X-Headrace-Unsupported-Fields": "keep"}
    answer = await system.http.post(f"{system.url}/chat", json=LOST, headers=headers)
    assert answer.status_code == 422
    assert "X-Headrace-Unsupported-Fields" in answer.json()["error"]["message"]
