"""Each provider gets the request in its own format, with nothing added, and the credentials that are configured."""

from typing import Any

import pytest

from tests.fakes import FakeProvider
from tests.provider_client import KEY, PROMPT, Make, ask, collect, parts_of, text_in
from workers.providers.anthropic_request import DEFAULT_MAX_TOKENS
from workers.providers.base import IgnoredFields

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Bye"},
]
PARAMETERS: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "stop": ["X", "Y"]}
PENALTIES: dict[str, Any] = {"frequency_penalty": 0.5, "presence_penalty": -0.5}


async def test_openai_gets_the_whole_request(fake: FakeProvider, make: Make) -> None:
    await collect(make("openai"), ask("echo", messages=CONVERSATION, **PARAMETERS, **PENALTIES))
    (call,) = fake.calls
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.request == {
        "model": "echo",
        "messages": CONVERSATION,
        "stream": True,
        "stream_options": {"include_usage": True},
        **PARAMETERS,
        **PENALTIES,
    }


async def test_anthropic_gets_the_whole_request(fake: FakeProvider, make: Make) -> None:
    await collect(make("anthropic"), ask("echo", messages=CONVERSATION, **PARAMETERS))
    (call,) = fake.calls
    assert KEY in {call.headers.get("x-api-key"), call.headers.get("authorization", "").removeprefix("Bearer ")}
    assert call.request == {
        "model": "echo",
        "system": "Be brief.\n\nBe kind.",
        "messages": [m for m in CONVERSATION if m["role"] != "system"],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "stop_sequences": ["X", "Y"],
    }


async def test_ollama_gets_the_whole_request(fake: FakeProvider, make: Make) -> None:
    await collect(make("ollama"), ask("echo", messages=CONVERSATION, **PARAMETERS, **PENALTIES))
    request = fake.calls[0].request
    assert request["messages"] == CONVERSATION
    assert request["options"] == {"temperature": 0.5, "top_p": 0.9, "num_predict": 9, "stop": ["X", "Y"], **PENALTIES}


@pytest.mark.parametrize(("name", "joined"), [("anthropic", "a\n\nb"), ("ollama", "a\n\nb")])
async def test_the_blocks_of_a_system_message_are_apart(
    fake: FakeProvider, make: Make, name: str, joined: str
) -> None:
    """Each is an instruction of its own; a provider that takes one text gets a blank line between them."""
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": blocks}, {"role": "user", "content": blocks}]
    await collect(make(name), ask("echo", messages=messages))
    request = fake.calls[0].request
    system = request["system"] if name == "anthropic" else request["messages"][0]["content"]
    assert system == joined
    if name == "ollama":
        assert request["messages"][1]["content"] == "ab"


async def test_parallel_calls_can_be_disabled(fake: FakeProvider, make: Make) -> None:
    tool = {"type": "function", "function": {"name": "one"}}
    for name in ("openai", "anthropic"):
        await collect(make(name), ask("echo", tools=[tool], parallel_tool_calls=False))
    openai, anthropic = fake.calls
    assert openai.request["parallel_tool_calls"] is False
    assert anthropic.request["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


async def test_anthropic_gets_no_penalties_and_no_seed(fake: FakeProvider, make: Make) -> None:
    fields = {**PENALTIES, "seed": 5}
    parts = await parts_of(make("anthropic"), ask("echo", **fields))
    assert not fields.keys() & fake.calls[0].request.keys()
    assert [set(part.paths) for part in parts if isinstance(part, IgnoredFields)] == [set(fields)]


async def test_no_field_is_added_to_the_clients_request(fake: FakeProvider, make: Make) -> None:
    for name in ("openai", "anthropic", "ollama"):
        await collect(make(name), ask("echo"))
    messages = [{"role": "user", "content": PROMPT}]
    common = {"model": "echo", "messages": messages, "stream": True}
    openai, anthropic, ollama = (call.request for call in fake.calls)
    assert openai == {**common, "stream_options": {"include_usage": True}}
    assert anthropic == {**common, "max_tokens": DEFAULT_MAX_TOKENS}
    assert ollama == common


async def test_the_environment_redirects_nothing(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(variable, "test-key-of-someone-else")
    for name in ("openai", "anthropic", "ollama"):
        assert text_in(await collect(make(name), ask("echo"))) == PROMPT
    assert all("someone-else" not in str(call.headers) for call in fake.calls)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_server_without_keys_works(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    provider = make(name, OPENAI_API_KEY=None, ANTHROPIC_API_KEY=None)
    assert text_in(await collect(provider, ask("echo"))) == PROMPT
    assert fake.calls[0].headers["authorization"] == "Bearer none"
