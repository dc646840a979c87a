"""OpenAI's own SDK works with ``/v1/chat/completions`` and any provider."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Call, Counts, ToolCall
from tests.openai_client import openai_client
from tests.sse_client import text_of
from tests.system import System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
PROVIDERS = ("openai", "anthropic", "ollama")
USER: list[Any] = [{"role": "user", "content": "hi"}]
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(system) as client:
        yield client


def calls_of(system: System, model: str) -> list[Call]:
    return [call for call in system.fake.calls if call.model == model]


async def chunks_of(client: AsyncOpenAI, model: str, **options: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model=model, messages=USER, stream=True, **options)
    return [chunk async for chunk in stream]


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@each_provider
async def test_text_streams_from_every_provider(system: System, client: AsyncOpenAI, provider: str) -> None:
    system.fake.play("text", Answer(deltas=WORDS, usage=(5, 7)))
    chunks = await chunks_of(client, f"{provider}/text", stream_options={"include_usage": True})
    assert joined(chunks) == TEXT
    assert [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role] == ["assistant"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 7)
    assert {chunk.model for chunk in chunks} == {f"{provider}/text"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in await chunks_of(client, f"{provider}/text"))

    whole = await client.chat.completions.create(model=f"{provider}/text", messages=USER)
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 12


@each_provider
async def test_cached_and_reasoning_tokens_have_their_own_fields(
    system: System, client: AsyncOpenAI, provider: str
) -> None:
    system.fake.play("details", Answer(deltas=WORDS, usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    chunks = await chunks_of(client, f"{provider}/details", stream_options={"include_usage": True})
    whole = await client.chat.completions.create(model=f"{provider}/details", messages=USER)
    of_ollama = {"prompt_tokens_details": {"cached_tokens": 20}}
    details = {
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    for usage in (chunks[-1].usage, whole.usage):
        assert usage is not None
        assert usage.model_dump(exclude_unset=True) == {
            **{"prompt_tokens": 30, "completion_tokens": 9, "total_tokens": 39},
            **(of_ollama if provider == "ollama" else details),
        }


async def test_details_that_were_not_counted_are_left_out(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("plain", Answer(deltas=WORDS, usage=(5, 7)))
    whole = await client.chat.completions.create(model="openai/plain", messages=USER)
    assert whole.usage is not None
    assert whole.usage.model_fields_set == {"prompt_tokens", "completion_tokens", "total_tokens"}


@each_provider
async def test_an_unknown_finish_reason_is_a_stop(system: System, client: AsyncOpenAI, provider: str) -> None:
    system.fake.play("odd", Answer(deltas=WORDS, finish_reason="out_of_ideas"))
    chunks = await chunks_of(client, f"{provider}/odd")
    whole = await client.chat.completions.create(model=f"{provider}/odd", messages=USER)
    assert (joined(chunks), chunks[-1].choices[0].finish_reason) == (TEXT, "stop")
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (TEXT, "stop")


@each_provider
async def test_parallel_tool_calls_and_their_results_round_trip(
    system: System, client: AsyncOpenAI, provider: str
) -> None:
    tools: list[Any] = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("one", "two")
    ]
    made = [ToolCall("a", "one", ('{"x"', ": 1}")), ToolCall("b", "two", ('{"y": "', 'é"}'))]
    system.fake.play("tools", Answer(deltas=(), tools=made), Answer(deltas=("done",)))
    async with client.chat.completions.stream(model=f"{provider}/tools", messages=USER, tools=tools) as stream:
        completion = await stream.get_final_completion()
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert [(c.function.name, c.function.arguments.replace(" ", "")) for c in calls] == [
        ("one", '{"x":1}'),
        ("two", '{"y":"é"}'),
    ]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in calls]
    message = choice.message.model_dump()
    again: list[Any] = [*USER, message, *results]
    answer = await client.chat.completions.create(model=f"{provider}/tools", messages=again, tools=tools)
    assert answer.choices[0].message.content == "done"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_call_of_a_tool_without_parameters_has_an_empty_object_as_arguments(
    system: System, client: AsyncOpenAI, provider: str
) -> None:
    """Anthropic sends no arguments for such a tool."""
    system.fake.play("bare", Answer(deltas=(), tools=[ToolCall("a", "now", ())]))
    model, now = f"{provider}/bare", {"name": "now"}
    chunks = await chunks_of(client, model, tools=[{"type": "function", "function": now}])
    calls = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(call.function.arguments or "" for call in calls if call.function) == "{}"
    tools: list[Any] = [{"type": "function", "parameters": None, "strict": None, **now}]
    response: Any = await client.responses.create(model=model, input="hi", tools=tools)
    assert response.output[0].arguments == "{}"


@each_provider
async def test_reasoning_streams_and_json_is_parsed_by_its_schema(
    system: System, client: AsyncOpenAI, provider: str
) -> None:
    class Named(BaseModel):
        name: str

    system.fake.play("json", Answer(reasoning=("let me", " think"), deltas=('{"na', 'me": "x"}')))
    chunks = await chunks_of(client, f"{provider}/json", reasoning_effort="low")
    thought = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks if c.choices)
    assert thought == "let me think"
    parsed = await client.chat.completions.parse(model=f"{provider}/json", messages=USER, response_format=Named)
    assert parsed.choices[0].message.parsed == Named(name="x")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own, about `parsed`
async def test_a_parsed_message_may_be_sent_back_unchanged(system: System, client: AsyncOpenAI) -> None:
    class Named(BaseModel):
        name: str

    system.fake.play("again", Answer(deltas=('{"name": "x"}',)))
    request: Any = {"model": "openai/again", "response_format": Named}
    first = await client.chat.completions.parse(messages=USER, **request)
    history: list[Any] = [*USER, first.choices[0].message, *USER]
    second = await client.chat.completions.parse(messages=history, **request)
    assert second.choices[0].message.parsed == Named(name="x")
    sent = calls_of(system, "again")[-1].request["messages"][1]
    assert (sent["role"], sent["content"]) == ("assistant", '{"name": "x"}')
    assert "parsed" not in sent  # a member of the SDK's helper, not of the API


async def test_a_refusal_a_content_filter_and_a_token_limit_end_as_such(system: System, client: AsyncOpenAI) -> None:
    class Named(BaseModel):
        name: str

    system.fake.play("refuses", Answer(deltas=(), refusal=("I will", " not")))
    request: Any = {"model": "openai/refuses", "messages": USER, "response_format": Named}
    answer = await client.chat.completions.parse(**request)
    assert (answer.choices[0].message.refusal, answer.choices[0].finish_reason) == ("I will not", "stop")
    async with client.chat.completions.stream(**request) as stream:
        assert (await stream.get_final_completion()).choices[0].message.refusal == "I will not"
    system.fake.play("filtered", Answer(deltas=WORDS, finish_reason="content_filter"))
    assert (await chunks_of(client, "openai/filtered"))[-1].choices[0].finish_reason == "content_filter"
    system.fake.play("short", Answer(deltas=WORDS, finish_reason="length"))
    assert (await chunks_of(client, "openai/short", max_completion_tokens=5))[-1].choices[0].finish_reason == "length"
    assert calls_of(system, "short")[-1].request["max_completion_tokens"] == 5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.InternalServerError),  # Headrace's key is wrong, not the client's
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
    ],
)
async def test_a_failure_before_any_output_has_its_http_status(
    system: System, client: AsyncOpenAI, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    system.fake.play(f"fails-{status}", Answer(status=status, retry_after="3600"))
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model=f"openai/fails-{status}", messages=USER, stream=stream)
    assert caught.value.code
    should_retry = caught.value.response.headers["x-should-retry"]
    assert should_retry == ("true" if status == 429 else "false")


async def test_an_idempotency_key_repeats_the_failure_too(system: System, client: AsyncOpenAI) -> None:
    """A retry would get the same failure, so the SDK is advised not to retry."""
    system.fake.play("keyed", Answer(status=429, retry_after="3600"), Answer(deltas=WORDS))
    request: Any = {"model": "openai/keyed", "messages": USER, "extra_body": {"on_worker_lost": "fail"}}
    request["extra_headers"] = {"Idempotency-Key": "keyed"}
    for stream in (True, False):
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**request, stream=stream)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in caught.value.response.headers


async def test_a_failure_after_output_is_raised_in_the_stream(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("breaks", Answer(deltas=WORDS[:2], end="truncate"))
    stream = await client.chat.completions.create(model="openai/breaks", messages=USER, stream=True)
    seen: list[ChatCompletionChunk] = []

    async def read() -> None:
        async for chunk in stream:
            seen.append(chunk)

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert joined(seen) == "".join(WORDS[:2])
    assert caught.value.code == "upstream_truncated"
    with pytest.raises(openai.APIStatusError) as whole:
        await client.chat.completions.create(model="openai/breaks", messages=USER)
    assert whole.value.status_code == 502


@pytest.mark.parametrize(
    ("body", "param", "expected"),
    [
        ({"messages": USER}, "model", "missing; add it"),
        ({"model": "m", "messages": []}, "messages", "must not be empty"),
        ({"model": "m", "messages": USER, "n": 2}, "n", "only 1"),
        ({"model": "m", "messages": USER, "modalities": ["text", "audio"]}, "modalities", "not supported"),
        ({"model": "m", "messages": USER, "audio": {}}, "audio", "not supported"),
        ({"model": "m", "messages": USER, "stream": "yes"}, "stream", "must be true or false"),
        ({"model": "m", "messages": USER, "stream": True, "stream_options": []}, "stream_options", "must be true"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages", "content is missing"),
    ],
)
async def test_invalid_input_is_named_in_openais_error_format(
    system: System, body: Any, param: str, expected: str
) -> None:
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert expected in error["message"]
    assert answer.headers["x-should-retry"] == "false"


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nobody/has-this", messages=USER)
    assert caught.value.code == "model_not_found"


async def test_every_content_part_of_the_sdk_reaches_the_provider(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("parts", Answer(deltas=WORDS))
    image = {"url": "https://example.com/x.png", "detail": "original"}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": image}]},
    ]
    options: Any = {"prompt_cache_options": {"ttl": "30m"}}
    await client.chat.completions.create(model="openai/parts", messages=messages, **options)
    (call,) = calls_of(system, "parts")
    assert call.request["messages"] == messages
    assert call.request["prompt_cache_options"] == {"ttl": "30m"}


async def test_dropped_fields_are_listed_in_a_header(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("drops", Answer(deltas=WORDS))
    request: Any = {"model": "anthropic/drops", "messages": USER, "verbosity": "low", "logit_bias": {"5": 1}}
    for stream in (True, False):
        raw = await client.chat.completions.with_raw_response.create(**request, stream=stream)
        assert {"logit_bias", "verbosity"} <= set(raw.headers["x-headrace-ignored"].split(", "))


async def test_disconnecting_cancels_the_providers_call(system: System, client: AsyncOpenAI) -> None:
    gate = asyncio.Event()
    system.fake.play("left", Answer(deltas=WORDS, gate=gate, gate_after=2))
    stream = await client.chat.completions.create(model="openai/left", messages=USER, stream=True)
    assert (await anext(aiter(stream))).choices
    await stream.close()
    await calls_of(system, "left")[-1].wait_closed()
    assert calls_of(system, "left")[-1].closed_by_client

    system.fake.play("held", Answer(first_delay_s=120))
    waiting = asyncio.create_task(client.chat.completions.create(model="openai/held", messages=USER, stream=True))
    while not calls_of(system, "held"):
        await asyncio.sleep(0.01)
    waiting.cancel()
    await calls_of(system, "held")[-1].wait_closed()


async def test_a_retry_of_the_sdk_starts_no_second_generation(start_system: StartSystem) -> None:
    """The gateway dies while the SDK waits for the first output; the SDK's retry finds the same stream."""
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("once", Answer(deltas=WORDS, gate=gate))
    async with openai_client(system, max_retries=10) as client:
        # There is no reader while the gateway restarts, which may take longer than the usual grace period.
        answering = asyncio.create_task(chunks_of(client, "openai/once", extra_body={"grace_s": 60}))
        await system.fake.wait_calls(1)
        system.gateways[0].stop()
        system.gateways[0].start()
        gate.set()
        assert joined(await answering) == TEXT
    assert len(calls_of(system, "once")) == 1


async def test_models_are_listed_and_retrieved_by_name(system: System, client: AsyncOpenAI) -> None:
    found = await client.models.retrieve("demo/demo")
    assert (found.id, found.owned_by) == ("demo/demo", "demo")
    assert found in [model async for model in client.models.list()]
    with pytest.raises(openai.NotFoundError, match="unknown model 'none' of provider demo"):
        await client.models.retrieve("demo/none")


async def test_the_same_prompt_twice_gives_two_answers_and_one_with_the_same_key(
    system: System, client: AsyncOpenAI
) -> None:
    system.fake.play("twice", Answer(deltas=lambda number: [f"call {number}"]))
    first, second = [joined(await chunks_of(client, "openai/twice")) for _ in range(2)]
    assert first != second
    keyed = [
        joined(await chunks_of(client, "openai/twice", extra_headers={"Idempotency-Key": "the-key"}))
        for _ in range(2)
    ]
    assert keyed[0] == keyed[1]


async def test_a_retry_after_a_refusal_does_not_return_an_earlier_answer(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, concurrent_streams=1)
    system.fake.play("again", Answer(deltas=lambda number: [f"call {number}"]))
    system.fake.play("hangs", Answer(end="hang"))
    body = {"model": "openai/again", "messages": USER}

    async def post(retry: int) -> httpx2.Response:
        headers = {"x-stainless-retry-count": str(retry)}
        return await system.http.post(f"{system.url}/v1/chat/completions", json=body, headers=headers)

    first = (await post(0)).json()
    hanging = await system.post("hangs")
    assert (await post(0)).status_code == 429
    await system.http.post(f"{system.url}/chat/{hanging}/cancel")
    await system.ended(hanging)
    retried = await post(1)
    assert retried.json()["choices"][0]["message"] != first["choices"][0]["message"]
    assert (await post(1)).json()["id"] == retried.json()["id"]


async def test_a_stream_can_be_resumed_over_the_native_api(system: System, client: AsyncOpenAI) -> None:
    gate = asyncio.Event()
    system.fake.play("resumed", Answer(deltas=WORDS, gate=gate, gate_after=2))
    extra = {"on_disconnect": "continue"}
    stream = await client.chat.completions.create(
        model="openai/resumed", messages=USER, stream=True, extra_body=extra
    )
    stream_id = stream.response.headers["x-stream-id"]
    assert (await anext(aiter(stream))).choices
    await stream.close()
    gate.set()
    async with await system.read(stream_id, gateway=1) as connection:
        assert text_of(await connection.rest()) == TEXT


async def test_a_draining_gateway_lets_streams_that_cannot_resume_finish(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("drained", Answer(deltas=WORDS, gate=gate, gate_after=2))
    async with openai_client(system) as client:
        stream = await client.chat.completions.create(model="openai/drained", messages=USER, stream=True)
        seen = [await anext(aiter(stream))]
        system.gateways[0].signal(signal.SIGTERM)

        async def is_draining() -> bool:
            try:
                answer = await system.http.get(f"{system.url}/readyz")
            except httpx2.HTTPError:
                return True
            return answer.status_code == 503

        await system.eventually(is_draining)
        gate.set()
        seen += [chunk async for chunk in stream]
    assert joined(seen) == TEXT
    assert await system.gateways[0].wait() == 0


async def test_a_lost_worker_is_invisible_before_output_and_an_error_after_it(
    start_system: StartSystem,
) -> None:
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("lost", Answer(deltas=WORDS, gate=gate), Answer(deltas=WORDS))
    async with openai_client(system) as client:
        answering = asyncio.create_task(chunks_of(client, "openai/lost"))
        await system.fake.wait_calls(1)
        system.workers[0].stop()
        system.workers[0].start()
        assert joined(await answering) == TEXT

        system.fake.play("lost-late", Answer(deltas=WORDS, gate=gate, gate_after=2), Answer(deltas=WORDS))
        stream = await client.chat.completions.create(model="openai/lost-late", messages=USER, stream=True)
        await anext(aiter(stream))
        system.workers[0].stop()
        system.workers[0].start()
        with pytest.raises(openai.APIError) as caught:
            [chunk async for chunk in stream]
        assert caught.value.code == "worker_lost"


async def test_rate_limits_have_the_headers_and_errors_of_the_sdk(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, requests_per_minute=1)
    async with openai_client(system) as client:
        raw = await client.chat.completions.with_raw_response.create(model="demo/demo", messages=USER)
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="demo/demo", messages=USER)
    assert caught.value.code == "requests_per_minute_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_heartbeats_keep_a_slow_answer_below_the_clients_read_timeout(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, heartbeat_s=0.2)
    for timeout_s in (1, 4, 16):  # a slow machine may need longer than a timeout for the answer's beginning
        gate = asyncio.Event()
        system.fake.play(f"slow-{timeout_s}", Answer(deltas=WORDS, gate=gate, gate_after=1))
        async with openai_client(system, timeout=timeout_s) as client:
            reading = asyncio.create_task(chunks_of(client, f"openai/slow-{timeout_s}"))
            await asyncio.sleep(timeout_s * 2.5)
            gate.set()
            await asyncio.wait([reading])
        if reading.exception() is None:
            break
    assert joined(reading.result()) == TEXT
