"""A server refuses a field of a client's own request: it is left out once and named, or its name is passed on."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, parts_of
from tests.system import System
from workers.providers.base import IgnoredFields

SPOKEN: Final = Answer(deltas=("spoken",))
MESSAGES: Final = ("anthropic", "/v1/messages", {"max_tokens": 2000})
CHAT: Final[tuple[str, str, dict[str, Any]]] = ("openai", "/v1/chat/completions", {})
EDITS: Final = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}


def refusal(provider: str, name: str) -> Answer:
    """Return a refusal as Anthropic or OpenAI words it."""
    if provider == "anthropic":
        error = {"type": "invalid_request_error", "message": f"{name}: Extra inputs are not permitted"}
        return Answer(status=400, error_body={"type": "error", "error": error})
    problem = {"message": f"Unknown parameter: '{name}'.", "param": name, "code": "unknown_parameter"}
    return Answer(status=400, error_body={"error": problem})


@pytest.fixture(scope="module")
async def learning(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield a system of one worker, so that it has learned from every earlier request."""
    folder = tmp_path_factory.mktemp("originals")
    system = System(folder, gateways=1, workers=1, providers=("openai", "anthropic"), provider_retries=1)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


def sent(system: System, model: str) -> list[dict[str, Any]]:
    return [call.request for call in system.fake.calls if call.model == model]


@pytest.mark.parametrize(
    ("dialect", "name", "value", "named"),
    [
        (MESSAGES, "context_management", EDITS, "context_management"),
        (MESSAGES, "metadata", {"user_id": "u"}, "metadata.user_id"),
        (MESSAGES, "service_tier", "auto", "service_tier"),
        (MESSAGES, "thinking", {"type": "disabled"}, "thinking"),
        (CHAT, "verbosity", "low", "verbosity"),
        (CHAT, "logit_bias", {"5": 1}, "logit_bias"),
        (CHAT, "thinking", {"type": "enabled"}, "thinking"),
        (CHAT, "safety_identifier", "s", "safety_identifier"),
    ],
)
async def test_a_refused_field_is_left_out_and_learned(
    learning: System, dialect: Any, name: str, value: Any, named: str
) -> None:
    provider, path, needed = dialect
    model = f"learns-{provider}-{name}"
    learning.fake.play(model, refusal(provider, name), SPOKEN)
    body = {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": "hi"}], **needed, name: value}
    for _ in range(2):
        answer = await learning.http.post(learning.url + path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-headrace-ignored"] == named
        assert (await learning.status(answer.headers["x-stream-id"]))["ignored"] == [named]
    first, *others = sent(learning, model)
    assert first.pop(name) == value
    assert others == [first, first]


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [(MESSAGES, "context_management", EDITS), (CHAT, "verbosity", "low")],
)
async def test_a_request_that_refuses_to_lose_it_fails_after_one_attempt(
    learning: System, dialect: Any, name: str, value: Any
) -> None:
    provider, path, needed = dialect
    model = f"strict-{provider}"
    learning.fake.play(model, refusal(provider, name), SPOKEN)
    body = {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": "hi"}], **needed, name: value}
    answer = await learning.http.post(learning.url + path, json={**body, "unsupported_fields": "refuse"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{name}: not supported by provider {provider}")
    assert len(sent(learning, model)) == 1


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [(MESSAGES, "context_management", EDITS), (CHAT, "logit_bias", {"5": 1})],
)
async def test_a_server_that_refuses_on_is_not_asked_for_ever(
    learning: System, dialect: Any, name: str, value: Any
) -> None:
    provider, path, needed = dialect
    model = f"stubborn-{provider}"
    learning.fake.play(model, refusal(provider, name))
    body = {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": "hi"}], **needed, name: value}
    answer = await learning.http.post(learning.url + path, json=body)
    assert answer.status_code == 400
    assert len(sent(learning, model)) == 2


@pytest.mark.parametrize(
    ("dialect", "name", "value"),
    [
        (MESSAGES, "mcp_servers", [{"type": "url", "url": "https://example.com", "name": "m"}]),
        (MESSAGES, "inference_geo", "eu"),
        (CHAT, "field_of_tomorrow", 1),
    ],
)
async def test_a_field_that_may_not_be_lost_is_named_to_the_client(
    learning: System, dialect: Any, name: str, value: Any
) -> None:
    """Its loss would change the answer's meaning, or the meaning of the field is not known."""
    provider, path, needed = dialect
    model = f"named-{name}"
    learning.fake.play(model, refusal(provider, name), SPOKEN)
    body = {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": "hi"}], **needed, name: value}
    answer = await learning.http.post(learning.url + path, json=body)
    assert answer.status_code == 400
    assert name in json.dumps(answer.json()["error"])
    assert len(sent(learning, model)) == 1


ADAPTIVE_REFUSED: Final = Answer(
    status=400,
    error_body={
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "adaptive thinking is not supported on this model"},
    },
)


async def test_thinking_that_does_not_fit_into_the_limit_is_named(fake: FakeProvider, make: Make) -> None:
    """A budget takes at least 1,024 tokens."""
    fake.play("m", ADAPTIVE_REFUSED, SPOKEN)
    provider = make("anthropic")
    for max_tokens, is_left_out in ((1000, True), (1000, True), (8000, False)):
        first, *_ = await parts_of(provider, ask("m", reasoning_effort="low", max_tokens=max_tokens))
        assert (first == IgnoredFields(("reasoning_effort",))) is is_left_out
    assert [(call.request.get("thinking") or {}).get("type") for call in fake.calls] == [
        *("adaptive", None, None, "enabled")
    ]


async def test_thinking_of_an_original_that_does_not_fit_is_named_as_the_client_wrote_it(learning: System) -> None:
    learning.fake.play("no-room", ADAPTIVE_REFUSED, SPOKEN)
    body = {"model": "anthropic/no-room", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}
    answer = await learning.http.post(f"{learning.url}/v1/messages", json={**body, "thinking": {"type": "adaptive"}})
    assert answer.status_code == 200
    assert answer.headers["x-headrace-ignored"] == "thinking"
    assert [request.get("thinking") for request in sent(learning, "no-room")] == [{"type": "adaptive"}, None]
