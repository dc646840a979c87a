"""Anthropic's own SDK works with ``/v1/messages`` and any provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, boot_credentials, token
from tests.fakes.answer import Answer, Call, Counts, ToolCall
from tests.sse_client import text_of
from tests.system import System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
PROVIDERS = ("openai", "anthropic", "ollama")
USER: list[Any] = [{"role": "user", "content": "hi"}]
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


def client_of(system: System, **options: Any) -> AsyncAnthropic:
    return AsyncAnthropic(**{"base_url": system.url, "api_key": "none", "max_retries": 0, **options})


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncAnthropic]:
    async with client_of(system) as client:
        yield client


def calls_of(system: System, model: str) -> list[Call]:
    return [call for call in system.fake.calls if call.model == model]


async def streamed(client: AsyncAnthropic, model: str, **options: Any) -> anthropic.types.Message:
    async with client.messages.stream(model=model, messages=USER, max_tokens=100, **options) as stream:
        return await stream.get_final_message()


def text_of_message(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@each_provider
async def test_text_streams_from_every_provider(system: System, client: AsyncAnthropic, provider: str) -> None:
    system.fake.play("m-text", Answer(deltas=WORDS, usage=(5, 7)))
    whole = await client.messages.create(model=f"{provider}/m-text", messages=USER, max_tokens=100)
    for message in (await streamed(client, f"{provider}/m-text"), whole):
        assert text_of_message(message) == TEXT
        assert (message.stop_reason, message.model, message.role) == ("end_turn", f"{provider}/m-text", "assistant")
        assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 7)


@each_provider
async def test_cached_and_reasoning_tokens_have_their_own_fields(
    system: System, client: AsyncAnthropic, provider: str
) -> None:
    """Anthropic counts the tokens of its cache apart."""
    system.fake.play("m-details", Answer(deltas=WORDS, usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    whole = await client.messages.create(model=f"{provider}/m-details", messages=USER, max_tokens=100)
    expected: dict[str, Any] = {
        **{"input_tokens": 6, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 4},
        **{"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}},
    }
    if provider == "ollama":
        expected = {"input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 9}
    for message in (await streamed(client, f"{provider}/m-details"), whole):
        assert message.usage.model_dump(exclude_unset=True) == expected


async def test_counts_that_are_missing_are_left_out(system: System, client: AsyncAnthropic) -> None:
    system.fake.play("m-plain", Answer(deltas=WORDS, usage=(5, 7)))
    whole = await client.messages.create(model="openai/m-plain", messages=USER, max_tokens=100)
    assert whole.usage.model_fields_set == {"input_tokens", "output_tokens"}


@each_provider
async def test_the_first_event_has_the_input_tokens(system: System, client: AsyncAnthropic, provider: str) -> None:
    system.fake.play("m-begins", Answer(deltas=WORDS, usage=Counts(30, 9, cached=20)))
    prompt: list[Any] = [{"role": "user", "content": "x" * 400}]
    async with client.messages.stream(model=f"{provider}/m-begins", messages=prompt, max_tokens=100) as stream:
        seen = [event async for event in stream]
    (start,) = [event for event in seen if event.type == "message_start"]
    (delta,) = [event for event in seen if event.type == "message_delta"]
    reported = {"input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 0}  # Anthropic counts at once
    if provider == "anthropic":
        assert start.message.usage.model_dump(exclude_unset=True) == reported
    else:  # a quarter of the characters
        assert start.message.usage.input_tokens == 100
    assert (delta.usage.input_tokens, delta.usage.cache_read_input_tokens, delta.usage.output_tokens) == (10, 20, 9)


@each_provider
async def test_an_empty_answer_is_a_whole_message(system: System, client: AsyncAnthropic, provider: str) -> None:
    system.fake.play("m-empty", Answer(deltas=(), usage=(5, 0)))
    message = await streamed(client, f"{provider}/m-empty")
    assert (message.content, message.stop_reason, message.usage.input_tokens) == ([], "end_turn", 5)


@each_provider
async def test_an_unknown_finish_reason_is_anthropics_own_or_the_end_of_a_turn(
    system: System, client: AsyncAnthropic, provider: str
) -> None:
    system.fake.play("m-odd", Answer(deltas=WORDS, finish_reason="out_of_ideas"))
    message = await streamed(client, f"{provider}/m-odd")
    reason = "out_of_ideas" if provider == "anthropic" else "end_turn"
    assert (text_of_message(message), message.stop_reason) == (TEXT, reason)


@each_provider
async def test_parallel_tool_calls_and_their_results_round_trip(
    system: System, client: AsyncAnthropic, provider: str
) -> None:
    tools: list[Any] = [{"name": name, "input_schema": {"type": "object"}} for name in ("one", "two")]
    made = [ToolCall("a", "one", ('{"x"', ": 1}")), ToolCall("b", "two", ('{"y": "', 'é"}'))]
    system.fake.play("m-tools", Answer(deltas=("Let me see",), tools=made), Answer(deltas=("done",)))
    message = await streamed(client, f"{provider}/m-tools", tools=tools)
    assert message.stop_reason == "tool_use"
    uses = [block for block in message.content if block.type == "tool_use"]
    assert [(use.name, use.input) for use in uses] == [("one", {"x": 1}), ("two", {"y": "é"})]
    assert text_of_message(message) == "Let me see"
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "ok"} for use in uses]
    again: list[Any] = [
        *USER,
        {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        {"role": "user", "content": [*results, {"type": "text", "text": "go on"}]},
    ]
    answer = await client.messages.create(model=f"{provider}/m-tools", messages=again, max_tokens=100, tools=tools)
    assert text_of_message(answer) == "done"


@each_provider
async def test_thinking_comes_before_the_text_and_may_be_sent_back(
    system: System, client: AsyncAnthropic, provider: str
) -> None:
    system.fake.play("m-thinks", Answer(reasoning=("let me", " think"), deltas=WORDS))
    options: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    streaming = await streamed(client, f"{provider}/m-thinks", **options)
    whole = await client.messages.create(model=f"{provider}/m-thinks", messages=USER, max_tokens=100, **options)
    for message in (streaming, whole):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[0].model_dump()["thinking"] == "let me think"
    again: list[Any] = [*USER, {"role": "assistant", "content": whole.content}, *USER]
    assert (
        text_of_message(await client.messages.create(model=f"{provider}/m-thinks", messages=again, max_tokens=9))
        == TEXT
    )


async def test_the_requested_effort_reaches_the_provider(system: System, client: AsyncAnthropic) -> None:
    system.fake.play("m-effort", Answer(deltas=WORDS))
    efforts: list[Any] = ["low", "medium", "high", "xhigh", "max"]
    for effort in efforts:
        await streamed(client, "anthropic/m-effort", output_config={"effort": effort})
        assert calls_of(system, "m-effort")[-1].request["output_config"] == {"effort": effort}


async def test_every_field_of_the_request_reaches_the_provider(system: System, client: AsyncAnthropic) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    fields: dict[str, Any] = {
        "model": "openai/echo",
        "system": "Be brief",
        "max_tokens": 7,
        "stop_sequences": ["END"],
        "tools": [{"name": "t", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]}],
        "extra_body": {"temperature": 0.5},
    }
    await client.messages.create(**fields)
    request = calls_of(system, "echo")[-1].request
    assert request["messages"][0] == {"role": "system", "content": "Be brief"}
    assert request["messages"][1]["content"][1]["image_url"]["url"] == "data:image/png;base64,AA=="
    assert [request[name] for name in ("max_tokens", "stop", "tool_choice", "temperature")] == [
        7,
        ["END"],
        "required",
        0.5,
    ]
    assert request["tools"][0]["function"]["name"] == "t"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_any_output_has_its_http_status(
    system: System, client: AsyncAnthropic, status: int, kind: type[anthropic.APIStatusError], stream: bool
) -> None:
    system.fake.play(f"m-fails-{status}", Answer(status=status, retry_after="3600"))
    model = f"anthropic/m-fails-{status}"
    with pytest.raises(kind):
        await client.messages.create(model=model, messages=USER, max_tokens=9, stream=stream)


async def test_a_failure_after_output_is_raised_in_the_stream(system: System, client: AsyncAnthropic) -> None:
    system.fake.play("m-breaks", Answer(deltas=WORDS[:2], end="truncate"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await streamed(client, "openai/m-breaks")
    assert "closed the connection" in str(caught.value)


@each_provider
@pytest.mark.parametrize("stream", [True, False])
async def test_the_tool_runner_of_the_sdk_works(
    system: System, client: AsyncAnthropic, provider: str, stream: bool
) -> None:
    """The runner prefers a container that keeps its conversation, but works without one."""

    @anthropic.beta_async_tool
    async def look(at: str) -> str:
        return f"a {at}"

    system.fake.play(
        "runner", Answer(deltas=(), tools=[ToolCall("c1", "look", ('{"at": "x"}',))]), Answer(deltas=WORDS)
    )
    options: Any = {"model": f"{provider}/runner", "max_tokens": 99, "messages": USER, "tools": [look]}
    runner: Any = client.beta.messages.tool_runner(**options, stream=stream)
    message = await runner.until_done()
    assert message.content[0].text == TEXT
    assert '"a x"' in json.dumps(calls_of(system, "runner")[-1].request)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"max_tokens": None}, "max_tokens: missing; add it"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: must be user, assistant or system"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"name": "f", "input_schema": 5}]}, "tools.0.input_schema: "),
        ({"top_k": -5}, "top_k: "),
        ({"stream": 1}, "stream: must be true or false"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role: must be user, assistant or system"),
        ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": []}}, "tool_choice.type: must be"),
        ({"output_config": {"effort": ["low"]}}, "output_config.effort: must be"),
    ],
)
async def test_invalid_input_is_named_in_anthropics_error_format(
    system: System, change: dict[str, Any], expected: str
) -> None:
    body = {"model": "demo/demo", "max_tokens": 9, "messages": USER} | change
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert answer.status_code == 400
    body_of_error = answer.json()
    assert (body_of_error["type"], body_of_error["error"]["type"]) == ("error", "invalid_request_error")
    assert expected in body_of_error["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_a_key_is_required(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, auth="jwt", credentials=boot_credentials(), **JWT_SETTINGS)
    async with client_of(system) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model="demo/demo", messages=USER, max_tokens=9)
    async with client_of(system, api_key=token("alice")) as client:
        raw = await client.messages.with_raw_response.create(model="demo/demo", messages=USER, max_tokens=9)
        assert raw.headers["request-id"]


async def test_disconnecting_cancels_unless_the_request_continues_without_its_client(
    system: System, client: AsyncAnthropic
) -> None:
    gate = asyncio.Event()
    system.fake.play("m-left", Answer(deltas=WORDS, gate=gate, gate_after=2))
    stream = await client.messages.create(model="openai/m-left", messages=USER, max_tokens=9, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await calls_of(system, "m-left")[-1].wait_closed()
    assert calls_of(system, "m-left")[-1].closed_by_client

    extra = {"on_disconnect": "continue"}
    stream = await client.messages.create(
        model="openai/m-left", messages=USER, max_tokens=9, stream=True, extra_body=extra
    )
    await anext(aiter(stream))
    await stream.close()
    gate.set()
    async with await system.read(stream.response.headers["x-stream-id"], gateway=1) as connection:
        assert text_of(await connection.rest()) == TEXT


async def test_tokens_are_counted_if_the_provider_can_count(system: System, client: AsyncAnthropic) -> None:
    fields: Any = {
        "messages": USER,
        "system": "Be brief.",
        "tools": [{"name": "one", "input_schema": {"type": "object"}}],
    }
    counted = await client.messages.count_tokens(model="anthropic/any", **fields)
    assert counted.input_tokens == 4
