"""A field that both formats have reaches the provider, and the tier of the answer comes back."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.schemas.chat import StoredRequest
from tests.fakes import FakeProvider
from tests.fakes.answer import Answer
from tests.provider_client import Make, parts_of
from tests.system import System
from workers.providers.base import IgnoredFields

USER: list[Any] = [{"role": "user", "content": "hi"}]
SHARED: dict[str, Any] = {
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
    "service_tier": "flex",
    "safety_identifier": "person",
    "user": "u",
}
ROUTES: dict[str, dict[str, Any]] = {
    "responses": {"input": "hi"},
    "messages": {"messages": USER, "max_tokens": 9},
    "chat/completions": {"messages": USER},
}


def sse(*events: dict[str, Any], named: bool) -> bytes:
    frames = [(f"event: {e['type']}\n" if named else "") + f"data: {json.dumps(e)}\n\n" for e in events]
    return "".join(frames).encode()


CHAT_ANSWER = sse(
    {"service_tier": "priority", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]},
    named=False,
)
MESSAGE: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
MESSAGES_ANSWER = sse(
    {"type": "message_start", "message": MESSAGE | {"usage": {"input_tokens": 1, "service_tier": "priority"}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
    named=True,
)


async def test_responses_fields_reach_a_chat_completions_server(system: System) -> None:
    system.fake.play("both-apis", Answer())
    body = {"model": "openai/both-apis", "input": "hi", "text": {"verbosity": "low"}, **SHARED, "max_tool_calls": 3}
    answer = await system.http.post(f"{system.url}/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    sent = next(call.request for call in system.fake.calls if call.model == "both-apis")
    assert {name: sent[name] for name in SHARED} == SHARED
    assert sent["verbosity"] == "low"
    assert not {"store", "metadata", "text", "max_tool_calls"} & sent.keys()
    assert answer.headers["X-Headrace-Ignored"] == "max_tool_calls"


async def test_they_are_named_for_a_provider_without_them(system: System) -> None:
    system.fake.play("parts-a", Answer())
    body = {"model": "anthropic/parts-a", "input": "hi", "text": {"verbosity": "low"}, **SHARED}
    answer = await system.http.post(f"{system.url}/v1/responses", json=body)
    named = set(answer.headers["X-Headrace-Ignored"].split(", "))
    assert named == {"text.verbosity", "prompt_cache_key", "prompt_cache_retention", "service_tier", "user"}
    sent = next(call.request for call in system.fake.calls if call.model == "parts-a")
    assert sent["metadata"] == {"user_id": "person"}


@pytest.mark.parametrize(
    ("family", "provider", "tier", "sent"),
    [
        ("anthropic", "openai", "standard_only", "default"),
        ("anthropic", "openai", "auto", "auto"),
        ("openai", "anthropic", "default", "standard_only"),
        ("responses", "anthropic", "auto", "auto"),
        ("openai", "anthropic", "flex", None),
        ("responses", "anthropic", "priority", None),
    ],
)
async def test_tiers_are_translated(
    fake: FakeProvider, make: Make, family: str, provider: str, tier: str, sent: str | None
) -> None:
    original = {"family": family, "body": {"service_tier": tier}, "specific": ["service_tier"]}
    request = StoredRequest.model_validate({"model": "echo", "messages": USER, "original": original})
    parts = await parts_of(make(provider), request)
    assert fake.calls[-1].request.get("service_tier") == sent
    ignored = [part.paths for part in parts if isinstance(part, IgnoredFields)]
    assert ignored == ([] if sent else [("service_tier",)])


async def test_a_server_that_refuses_a_counterpart_goes_without_it(fake: FakeProvider, make: Make) -> None:
    refusal = {"error": {"message": "Unknown parameter: 'verbosity'", "param": "verbosity"}}
    fake.play("old", Answer(status=400, error_body=refusal), Answer())
    original = {"family": "responses", "body": {"text": {"verbosity": "low"}}, "specific": ["text.verbosity"]}
    request = StoredRequest.model_validate({"model": "old", "messages": USER, "original": original})
    parts = await parts_of(make("openai"), request)
    assert "verbosity" not in fake.calls[-1].request
    assert [part.paths for part in parts if isinstance(part, IgnoredFields)] == [("text.verbosity",)]


@pytest.mark.parametrize(("provider", "raw"), [("openai", CHAT_ANSWER), ("anthropic", MESSAGES_ANSWER)])
async def test_the_tier_of_the_answer_comes_back(system: System, provider: str, raw: bytes) -> None:
    system.fake.play("tier", *[Answer(raw=raw)] * 3)
    for route, body in ROUTES.items():
        answer = await system.http.post(f"{system.url}/v1/{route}", json={"model": f"{provider}/tier", **body})
        assert answer.status_code == 200, answer.text
        whole = answer.json()
        assert (whole["usage"] if route == "messages" else whole)["service_tier"] == "priority"


@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_the_response_repeats_its_request(system: System, stores: bool, padding: int) -> None:
    system.fake.play("echoes", Answer())
    tools: list[Any] = [
        {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {"type": "web_search"},
    ]
    sent: dict[str, Any] = {
        "instructions": "Be brief. " * 20,
        "tools": tools,
        "tool_choice": "auto",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "store": stores,
        **SHARED,
    }
    body = {"model": "openai/echoes", "input": "x" * padding + "hi", **sent}
    answer = await system.http.post(f"{system.url}/v1/responses", json=body)
    created = answer.json()
    assert {name: created[name] for name in sent} == sent
    url = f"{system.url}/v1/responses/{created['id']}"
    assert (await system.http.get(url)).json() == created
    if not padding:
        await check_stored_once(system, created["id"].removeprefix("resp_"), "Be brief. ", once=stores)
    events = await system.http.get(url, params={"stream": "true"})
    objects = [json.loads(line[6:]) for line in events.text.splitlines() if line.startswith("data: ")]
    shown = [event["response"] for event in objects if "response" in event]
    assert [event["status"] for event in shown] == ["queued", "in_progress", "completed"]
    assert all({name: event[name] for name in sent} == sent for event in shown)


async def check_stored_once(system: System, stream_id: str, text: str, *, once: bool) -> None:
    """Check that a text of the request is stored in one field of the state."""
    async with Redis.from_url(system.redis_url) as redis:
        keys = [key async for key in redis.scan_iter(f"*{stream_id}*state")]
        fields = await redis.hgetall(keys[0])
    having = [name for name, value in fields.items() if text.encode() in value]
    assert having == [b"request" if once else b"response"]


async def test_what_was_not_sent_is_not_invented(system: System) -> None:
    system.fake.play("bare", Answer())
    answer = await system.http.post(f"{system.url}/v1/responses", json={"model": "openai/bare", "input": "hi"})
    whole = answer.json()
    assert (whole["instructions"], whole["tools"], whole["text"]) == (None, [], {"format": {"type": "text"}})
    assert not {"temperature", "service_tier", "user"} & whole.keys()


async def test_an_echo_that_would_be_stored_twice_is_bounded(system: System) -> None:
    system.fake.play("large", Answer())
    body = {"model": "openai/large", "input": "hi", "instructions": "y" * 300_000, "user": "u" * 500}
    created = (await system.http.post(f"{system.url}/v1/responses", json=body)).json()
    assert "instructions" not in created
    assert (created["tools"], created["user"]) == ([], "u" * 500)
    assert (await system.http.get(f"{system.url}/v1/responses/{created['id']}")).json() == created


NAMES: dict[str, list[str]] = {
    "a header": ["a\r\nX-Injected: 1", "b\nSet-Cookie: c=1"],
    "not ASCII": ["größe", "名前", "\U0001f600", "\u2028", "\ud800"],
    "separators": ["a, seed", "x,y", "tab\there", "nul\x00", "del\x7f"],
    "long": ["n" * 5000, "é" * 5000],
    "many": [f"field_{at}" for at in range(5000)],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("route", ROUTES)
async def test_names_of_ignored_fields_are_safe_in_the_header(system: System, route: str, names: list[str]) -> None:
    system.fake.play("named", Answer())
    provider = "anthropic" if route == "chat/completions" else "openai"
    body = ROUTES[route] | {"model": f"{provider}/named"} | dict.fromkeys(names, 1)
    if "\ud800" in names:
        body.pop("\ud800")  # no JSON parser of ours takes it as a name
    answer = await system.http.post(f"{system.url}/v1/{route}", content=json.dumps(body))
    assert answer.status_code == 200, answer.text
    assert not {"x-injected", "set-cookie"} & set(answer.headers)
    named = answer.headers["X-Headrace-Ignored"]
    assert named.isascii()
    assert named.isprintable()
    assert len(named) <= 1024
    assert "seed" not in named.split(", ")
    assert len(named.split(", ")) <= 64
    status = (await system.http.get(f"{system.url}/chat/{answer.headers['X-Stream-Id']}")).json()
    assert all(path.isascii() and path.isprintable() and len(path) <= 128 for path in status["ignored"])
