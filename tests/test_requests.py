"""A canonical request is converted to each provider's format."""

from typing import Any

import pytest

from shared.schemas import ChatRequest
from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, collect, failure, network, text_in
from tests.raw_server import answering

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "How it is outside",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "minLength": 1}, "days": {"anyOf": [{"type": "integer"}]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
BARE = {"type": "function", "function": {"name": "now"}}
TURN: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather in Bern and Rome?"},
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Bern"}'}},
            {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "sun"}]},
]
IMAGE: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    }
]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA, "strict": True}}


async def sent(fake: FakeProvider, make: Make, name: str, request: ChatRequest) -> dict[str, Any]:
    fake.play(request.model, Answer(deltas=["{}"]))
    await collect(make(name), request)
    return fake.calls[-1].request


# --- tools


@pytest.mark.parametrize(
    "choice", ["auto", "none", "required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_openai_gets_the_clients_own_fields(fake: FakeProvider, make: Make, choice: object) -> None:
    body = await sent(fake, make, "openai", ask("m", messages=TURN, tools=[WEATHER, BARE], tool_choice=choice))
    assert (body["messages"], body["tools"], body["tool_choice"]) == (TURN, [WEATHER, BARE], choice)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "now"}}, {"type": "tool", "name": "now"}),
    ],
)
async def test_anthropic_gets_blocks(fake: FakeProvider, make: Make, choice: object, expected: object) -> None:
    body = await sent(fake, make, "anthropic", ask("m", messages=TURN, tools=[WEATHER, BARE], tool_choice=choice))
    assert body["tools"] == [
        {
            "name": "get_weather",
            "description": "How it is outside",
            "input_schema": WEATHER["function"]["parameters"],  # type: ignore[index]
        },
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body.get("tool_choice") == expected
    assert body["messages"] == [
        TURN[0],
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Bern"}},
                {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {"city": "Rome"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "sun"},
            ],
        },
    ]


async def test_ollama_gets_names_instead_of_ids(fake: FakeProvider, make: Make) -> None:
    body = await sent(fake, make, "ollama", ask("m", messages=TURN, tools=[WEATHER], tool_choice="auto"))
    assert body["tools"] == [WEATHER]
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"function": {"name": "get_weather", "arguments": {"city": "Bern"}}},
                {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}},
            ],
        },
        {"role": "tool", "content": "rain", "tool_name": "get_weather"},
        {"role": "tool", "content": "sun", "tool_name": "get_weather"},
    ]
    assert "tools" not in await sent(fake, make, "ollama", ask("m", tools=[WEATHER], tool_choice="none"))


async def test_an_id_may_be_reused_in_a_later_turn(fake: FakeProvider, make: Make) -> None:
    """Some servers count the calls of each answer from 0."""

    def turn(name: str) -> list[dict[str, Any]]:
        called = {"id": "0", "type": "function", "function": {"name": name, "arguments": ""}}
        return [{"role": "assistant", "tool_calls": [called]}, {"role": "tool", "tool_call_id": "0", "content": name}]

    body = await sent(fake, make, "ollama", ask("m", messages=[*turn("f"), *turn("g")]))
    assert [m["tool_name"] for m in body["messages"] if m["role"] == "tool"] == ["f", "g"]
    assert body["messages"][0]["tool_calls"] == [{"function": {"name": "f", "arguments": {}}}]


async def test_ollama_gets_its_key(fake: FakeProvider, make: Make) -> None:
    await collect(make("ollama", OLLAMA_API_KEY="test-key-789"), ask("echo"))
    assert fake.calls[-1].headers["authorization"] == "Bearer test-key-789"
    await collect(make("ollama", OLLAMA_API_KEY=None), ask("echo"))
    assert "authorization" not in fake.calls[-1].headers


# --- images


async def test_images_are_sent_in_each_providers_form(fake: FakeProvider, make: Make) -> None:
    assert (await sent(fake, make, "openai", ask("m", messages=IMAGE)))["messages"] == IMAGE
    (message,) = (await sent(fake, make, "anthropic", ask("m", messages=IMAGE)))["messages"]
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert message["content"] == [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    (message,) = (await sent(fake, make, "ollama", ask("m", messages=IMAGE)))["messages"]
    assert message == {"role": "user", "content": "What is it?", "images": [PIXEL]}


@pytest.mark.parametrize("url", ["https://example.com/x.png", "data:image/png;base64,/etc/passwd!"])
async def test_ollama_gets_no_image_address_and_no_file_name(make: Make, url: str) -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    error = await failure(make("ollama"), ask("m", messages=messages))
    assert error.code == "provider_rejected"
    assert "image" in error.message


async def test_an_image_address_is_passed_to_the_provider(fake: FakeProvider, make: Make) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    (message,) = (await sent(fake, make, "anthropic", ask("m", messages=[{"role": "user", "content": [image]}])))[
        "messages"
    ]
    source = {"type": "url", "url": "https://example.com/x.png"}
    assert message["content"] == [{"type": "image", "source": source}]


# --- the form of the answer


async def test_json_is_requested_in_each_providers_form(fake: FakeProvider, make: Make) -> None:
    by_schema = ask("m", response_format=BY_SCHEMA)
    assert (await sent(fake, make, "openai", by_schema))["response_format"] == BY_SCHEMA
    assert (await sent(fake, make, "ollama", by_schema))["format"] == SCHEMA
    format_ = {"type": "json_schema", "schema": SCHEMA}
    assert (await sent(fake, make, "anthropic", by_schema))["output_config"] == {"format": format_}

    any_object = ask("m", response_format={"type": "json_object"})
    assert (await sent(fake, make, "openai", any_object))["response_format"] == {"type": "json_object"}
    assert (await sent(fake, make, "ollama", any_object))["format"] == "json"
    body = await sent(fake, make, "anthropic", any_object)
    assert body["tool_choice"] == {"type": "tool", "name": "json"}
    assert [tool["name"] for tool in body["tools"]] == ["json"]


async def test_an_empty_object_of_anthropic_is_complete(make: Make) -> None:
    """Anthropic does not spell out the empty input of a forced tool."""
    started = (
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"json"}}'
    )
    delta = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":""}}'
    rest = (
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"tool_use"}}\n\ndata: {"type":"message_stop"}\n\n'
    )
    async with answering(started + b"\n\n" + delta + b"\n\n" + rest) as url:
        provider = make("anthropic", ANTHROPIC_BASE_URL=url)
        deltas = await collect(provider, ask("m", response_format={"type": "json_object"}))
    assert text_in(deltas) == "{}"


async def test_a_schema_keeps_its_nulls(fake: FakeProvider, make: Make) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, None], "default": None}}}
    request = ask("m", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert (await sent(fake, make, "ollama", request))["format"] == schema


@network
async def test_text_needs_no_format(fake: FakeProvider, make: Make, name: str) -> None:
    body = await sent(fake, make, name, ask("m", response_format={"type": "text"}))
    assert not body.keys() & {"format", "output_config", "tools"}


async def test_reasoning_effort_is_sent_in_each_providers_form(fake: FakeProvider, make: Make) -> None:
    request = ask("m", reasoning_effort="high")
    assert (await sent(fake, make, "openai", request))["reasoning_effort"] == "high"
    assert (await sent(fake, make, "ollama", request))["think"] == "high"
    body = await sent(fake, make, "anthropic", request)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}
    for effort, openai, ollama, anthropic in (
        ("none", "none", False, None),
        ("minimal", "minimal", "low", {"effort": "low"}),
        ("xhigh", "xhigh", "high", {"effort": "xhigh"}),
        ("max", "max", "high", {"effort": "max"}),
    ):
        request = ask("m", reasoning_effort=effort)
        assert (await sent(fake, make, "openai", request))["reasoning_effort"] == openai
        assert (await sent(fake, make, "ollama", request))["think"] == ollama
        assert (await sent(fake, make, "anthropic", request)).get("output_config") == anthropic
    # Anthropic requires its signed thinking back before a tool's result, so thinking stays off here.
    body = await sent(fake, make, "anthropic", ask("m", messages=TURN, reasoning_effort="high"))
    assert not body.keys() & {"thinking", "output_config"}
