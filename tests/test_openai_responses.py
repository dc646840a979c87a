"""OpenAI's own SDK works with ``/v1/responses`` and any provider: streams, background and resume."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Outcome
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Call, Counts, ToolCall
from tests.openai_client import openai_client
from tests.system import System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
each_provider = pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])


def sdk(system: System, **options: Any) -> Any:
    """Return an untyped client: its events are a union of a hundred classes."""
    return openai_client(system, **options)


@pytest.fixture
async def client(system: System) -> AsyncIterator[Any]:
    async with sdk(system) as client:
        yield client


def calls_of(system: System, model: str) -> list[Call]:
    return [call for call in system.fake.calls if call.model == model]


async def collected(stream: Any) -> list[Any]:
    seen = [event async for event in stream]
    numbers = [event.sequence_number for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # without holes
    return seen


async def collected_after(client: Any, response_id: str, after: int) -> list[Any]:
    stream = await client.responses.retrieve(response_id, stream=True, starting_after=after)
    return [event async for event in stream]


async def ask(client: Any, model: str, **options: Any) -> list[Any]:
    return await collected(await client.responses.create(model=model, input="hi", stream=True, **options))


def text_of(seen: list[Any]) -> str:
    return "".join(event.delta for event in seen if event.type == "response.output_text.delta")


async def take(stream: Any, seen: list[Any]) -> None:
    """Append the events to ``seen`` until the stream ends or fails."""
    async for event in stream:
        seen.append(event)


def events_of(body: str) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


def plain(seen: list[Any]) -> list[Any]:
    return [event.model_dump() for event in seen]


@each_provider
async def test_text_streams_from_every_provider(system: System, client: Any, provider: str) -> None:
    system.fake.play("r-text", Answer(deltas=WORDS, usage=(5, 7)))
    seen = await ask(client, f"{provider}/r-text")
    assert [event.type for event in seen[:2]] == ["response.created", "response.in_progress"]
    assert text_of(seen) == TEXT
    last = seen[-1].response
    whole = await client.responses.create(model=f"{provider}/r-text", input="hi")
    for response in (last, whole):
        assert (response.status, response.output_text, response.model) == ("completed", TEXT, f"{provider}/r-text")
        assert response.usage.total_tokens == 12
    async with client.responses.stream(model=f"{provider}/r-text", input="hi") as stream:
        final = await stream.get_final_response()
    assert final.output_text == TEXT


@each_provider
async def test_cached_and_reasoning_tokens_have_their_own_fields(system: System, client: Any, provider: str) -> None:
    """Counts that Ollama does not have are 0, because the SDK's type requires them."""
    system.fake.play("r-details", Answer(deltas=WORDS, usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    seen = await ask(client, f"{provider}/r-details")
    whole = await client.responses.create(model=f"{provider}/r-details", input="hi")
    written, reasoning = (0, 0) if provider == "ollama" else (4, 5)
    for response in (seen[-1].response, whole, await client.responses.retrieve(whole.id)):
        assert response.usage.model_dump(exclude_unset=True) == {
            **{"input_tokens": 30, "output_tokens": 9, "total_tokens": 39},
            "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": written},
            "output_tokens_details": {"reasoning_tokens": reasoning},
        }


@each_provider
async def test_an_unknown_finish_reason_is_a_complete_answer(system: System, client: Any, provider: str) -> None:
    system.fake.play("r-odd", Answer(deltas=WORDS, finish_reason="out_of_ideas"))
    seen = await ask(client, f"{provider}/r-odd")
    assert (seen[-1].type, seen[-1].response.output_text) == ("response.completed", TEXT)


@each_provider
async def test_tool_calls_reasoning_and_a_schema_round_trip(system: System, client: Any, provider: str) -> None:
    class Named(BaseModel):
        name: str

    tools: list[Any] = [
        {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": None}
        for name in ("one", "two")
    ]
    made = [ToolCall("a", "one", ('{"x"', ": 1}")), ToolCall("b", "two", ('{"y": "', 'é"}'))]
    answer = Answer(reasoning=("let me", " think"), deltas=("I call",), tools=made)
    system.fake.play("r-tools", answer, Answer(deltas=("done",)))
    async with client.responses.stream(
        model=f"{provider}/r-tools", input="hi", tools=tools, reasoning={"effort": "low"}
    ) as stream:
        final = await stream.get_final_response()
    kinds = [item.type for item in final.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(c.name, c.arguments.replace(" ", "")) for c in calls] == [("one", '{"x":1}'), ("two", '{"y":"é"}')]
    items: list[Any] = [item.model_dump(exclude={"parsed_arguments"}) for item in final.output]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "ok"} for call in calls]
    history: list[Any] = [{"role": "user", "content": "hi"}, *items, *results]
    again = await client.responses.create(model=f"{provider}/r-tools", input=history, tools=tools)
    assert again.output_text == "done"

    system.fake.play("r-json", Answer(deltas=('{"na', 'me": "x"}')))
    parsed = await client.responses.parse(model=f"{provider}/r-json", input="hi", text_format=Named)
    assert parsed.output_parsed == Named(name="x")


async def test_every_reasoning_effort_of_the_sdk_reaches_the_provider(system: System, client: Any) -> None:
    system.fake.play("r-effort", Answer(deltas=WORDS))
    for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max"):
        await client.responses.create(model="openai/r-effort", input="hi", reasoning={"effort": effort})
        assert calls_of(system, "r-effort")[-1].request["reasoning_effort"] == effort


async def test_a_replay_is_identical_from_any_sequence_number(system: System, client: Any) -> None:
    calls = [ToolCall("a", "one", ("{}",)), ToolCall("b", "two", ('{"y"', ":1}"))]
    system.fake.play("r-all", Answer(reasoning=("hm",), deltas=WORDS, tools=calls, delay_s=0.01))
    tools: list[Any] = [
        {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": None}
        for name in ("one", "two")
    ]
    live = await ask(client, "openai/r-all", tools=tools)
    response_id = live[0].response.id
    async with sdk(system, gateway=1) as elsewhere:
        for after in (-1, *range(0, len(live), 3), len(live) - 2):
            stream = await elsewhere.responses.retrieve(response_id, stream=True, starting_after=after)
            assert plain([event async for event in stream]) == plain(live[after + 1 :])
        async with elsewhere.responses.stream(response_id=response_id, starting_after=3) as helper:
            final = await helper.get_final_response()
        assert await collected_after(elsewhere, response_id, len(live) - 1) == []
        with pytest.raises(openai.APIError, match="starting_after: the stream has ended before this number"):
            await collected_after(elsewhere, response_id, len(live))
    assert final.output_text == TEXT
    assert (await client.responses.retrieve(response_id)).output_text == TEXT


async def test_a_background_response_can_be_polled_resumed_cancelled_and_deleted(system: System, client: Any) -> None:
    gate = asyncio.Event()
    system.fake.play("r-back", Answer(deltas=WORDS, gate=gate, gate_after=2))
    queued = await client.responses.create(model="openai/r-back", input="hi", background=True)
    assert queued.status in {"queued", "in_progress"}
    stream = await client.responses.create(model="openai/r-back", input="hi", background=True, stream=True)
    seen = [await anext(aiter(stream)) for _ in range(4)]
    await stream.close()
    gate.set()
    last = seen[-1].sequence_number
    rest = await client.responses.retrieve(seen[0].response.id, stream=True, starting_after=last)
    assert text_of(seen + [event async for event in rest]) == TEXT

    async def ended() -> bool:
        return bool((await client.responses.retrieve(queued.id)).status == "completed")

    await system.eventually(ended)
    system.fake.play("r-hangs", Answer(deltas=WORDS, end="hang"))
    hanging = await client.responses.create(model="openai/r-hangs", input="hi", background=True, stream=True)
    first = await anext(aiter(hanging))
    while True:
        event = await anext(aiter(hanging))
        if event.type == "response.output_text.delta":
            break
    for _ in range(2):
        await client.responses.cancel(first.response.id)
    left = [event async for event in hanging]
    assert (left[-1].type, left[-1].response.status) == ("response.incomplete", "cancelled")
    assert (await client.responses.cancel(first.response.id)).status == "cancelled"
    await client.responses.delete(first.response.id)
    with pytest.raises(openai.APIStatusError) as gone:
        await client.responses.retrieve(first.response.id)
    assert gone.value.status_code == 410
    for unknown in ("resp_" + "0" * 34, "chatcmpl-1"):
        # Right after its start, a gateway cannot rule out that Redis has lost the stream, and answers 503.
        with pytest.raises(openai.NotFoundError):
            await client.with_options(max_retries=30).responses.retrieve(unknown)


async def test_disconnecting_cancels_a_response_that_is_not_in_the_background(system: System, client: Any) -> None:
    gate = asyncio.Event()
    system.fake.play("r-left", Answer(deltas=WORDS, gate=gate, gate_after=2))
    stream = await client.responses.create(model="openai/r-left", input="hi", stream=True)
    while (await anext(aiter(stream))).type != "response.output_text.delta":
        pass
    await stream.close()
    await calls_of(system, "r-left")[-1].wait_closed()


async def test_limits_refusals_and_failures_end_as_such(system: System, client: Any) -> None:
    system.fake.play("r-short", Answer(deltas=WORDS, finish_reason="length"))
    last = (await ask(client, "openai/r-short", max_output_tokens=16))[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")
    system.fake.play("r-refuses", Answer(deltas=(), refusal=("I will", " not")))
    async with client.responses.stream(model="openai/r-refuses", input="hi") as stream:
        refused = await stream.get_final_response()  # it raises if the response is not completed
    assert refused.output[0].content[0].refusal == "I will not"
    system.fake.play("r-fails", Answer(status=400))
    with pytest.raises(openai.APIError) as failed:  # as with OpenAI, which sends an event of this type
        await ask(client, "openai/r-fails")
    assert failed.value.code == "invalid_prompt"
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="openai/r-fails", input="hi")
    system.fake.play("r-breaks", Answer(deltas=WORDS[:2], end="truncate"))
    broken = await client.responses.create(model="openai/r-breaks", input="hi", stream=True)
    seen: list[Any] = []
    with pytest.raises(openai.APIError):
        await take(broken, seen)
    assert text_of(seen) == "".join(WORDS[:2])


@pytest.mark.parametrize("output", [(), WORDS[:2]], ids=["before any output", "after some output"])
async def test_a_failed_stream_ends_with_both_of_openais_events(system: System, output: tuple[str, ...]) -> None:
    """Some libraries, such as LangChain, take a stream without the event ``error`` for a complete answer."""
    answer = Answer(deltas=output, end="truncate") if output else Answer(status=400)
    system.fake.play("r-both", answer)
    request = {"model": "openai/r-both", "input": "hi", "stream": True}
    created = await system.http.post(f"{system.url}/v1/responses", json=request)
    seen = events_of(created.text)
    error, failed = seen[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert (error["error"]["code"], error["error"]["message"]) == tuple(failed["response"]["error"].values())
    assert error["error"]["type"] == ("server_error" if output else "invalid_request_error")
    assert error["sequence_number"] + 1 == failed["sequence_number"] == len(seen) - 1
    path = f"/v1/responses/{failed['response']['id']}"
    rest = await system.http.get(f"{system.url}{path}?stream=true&starting_after={error['sequence_number'] - 1}")
    assert events_of(rest.text) == [error, failed]


@pytest.mark.parametrize(
    ("status", "theirs", "code"),
    [
        (400, None, "invalid_prompt"),
        (404, None, "invalid_prompt"),
        (400, "unsupported_parameter", "invalid_prompt"),
        (400, "context_length_exceeded", "context_length_exceeded"),
        (400, "image_too_large", "image_too_large"),
        (429, None, "rate_limit_exceeded"),
        (503, None, "provider_unavailable"),
    ],
)
async def test_a_failed_response_has_the_codes_by_which_clients_decide_about_a_retry(
    system: System, client: Any, status: int, theirs: str | None, code: str
) -> None:
    """A client of OpenAI knows a refusal by OpenAI's codes only. It takes another code for a passing failure."""
    body = {"error": {"message": "no", "type": "invalid_request_error", "code": theirs, "param": None}}
    system.fake.play(f"r-{status}-{theirs}", *[Answer(status=status, error_body=body)] * 9)
    request = {"model": f"openai/r-{status}-{theirs}", "input": "hi", "stream": True}
    error, failed = events_of((await system.http.post(f"{system.url}/v1/responses", json=request)).text)[-2:]
    assert error["error"]["code"] == failed["response"]["error"]["code"] == code
    assert (await client.responses.retrieve(failed["response"]["id"])).error.code == code


async def test_the_sdk_retries_a_retryable_failure_by_itself(system: System, client: Any) -> None:
    """Without a stream, the status is deferred until the end."""
    system.fake.play("r-busy", Answer(status=429, retry_after="1"), Answer(status=429), Answer(deltas=WORDS))
    answer = await client.with_options(max_retries=2).responses.create(model="openai/r-busy", input="hi")
    assert answer.output_text == TEXT


async def test_a_response_deleted_while_its_client_waits_is_gone(system: System, client: Any) -> None:
    system.fake.play("r-deleted", Answer(deltas=WORDS, gate=asyncio.Event(), gate_after=2))
    request: dict[str, Any] = {"model": "openai/r-deleted", "input": "hi", "extra_body": {"on_worker_lost": "fail"}}
    request["extra_headers"] = {"Idempotency-Key": "r-deleted"}
    waiting = asyncio.create_task(client.responses.create(**request))
    streamed = await client.responses.create(**request, stream=True)  # attaches to the same stream, to get its id
    await client.responses.delete((await anext(aiter(streamed))).response.id)
    with pytest.raises(openai.APIStatusError) as gone:
        await waiting
    assert gone.value.status_code == 410


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"input": 5}, "input: must be a string or a list"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.id: no such item"),
        ({"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id: no such response"),
        ({"input": "hi", "conversation": "conv_1"}, "conversation: not supported"),
        ({"input": "hi", "prompt": {"id": "pmpt_1"}}, "prompt: not supported"),
        (
            {"input": "hi", "tools": [{"type": "web_search"}], "tool_choice": {"type": "function", "name": "f"}},
            "tool_choice: names no tool of the request",
        ),
        ({"input": "hi", "tool_choice": "required"}, "tool_choice: there are no tools"),
        ({"input": "hi", "max_output_tokens": 0}, "max_output_tokens: "),
        ({"input": "hi", "reasoning": {"effort": "extreme"}}, "reasoning.effort: "),
        ({"input": [{"type": "message", "role": "narrator", "content": "hi"}]}, "input.0.role: must be user"),
        ({"input": [{"type": "compaction_trigger"}]}, "input.0.type: compaction is not supported"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://a/b"}]}]},
            "input.0.content.0.image_url: must be",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "", "arguments": "{}"}]},
            "input.0.name: ",
        ),
        (
            {"input": "hi", "tools": [{"type": "web_search"}, {"type": "function", "name": "f", "strict": 1}]},
            "tools.1.strict: ",
        ),
        ({"input": "hi", "background": "yes"}, "background: must be true or false"),
    ],
)
async def test_invalid_input_is_named_in_openais_error_format(
    system: System, body: dict[str, Any], expected: str
) -> None:
    answer = await system.http.post(f"{system.url}/v1/responses", json={"model": "demo/demo"} | body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert expected in answer.json()["error"]["message"]


async def test_a_stream_resumes_elsewhere_after_its_gateway_is_killed_or_drains(start_system: StartSystem) -> None:
    """The client continues at another gateway after its last sequence number, and gets every event once."""
    system = await start_system(gateways=2, workers=1)
    gates = [asyncio.Event(), asyncio.Event()]
    words = [f"w{n} " for n in range(30)]
    system.fake.play("r-long", *(Answer(deltas=words, gate=gate, gate_after=10) for gate in gates))
    for number, leave in enumerate((signal.SIGKILL, signal.SIGTERM)):
        async with sdk(system, gateway=number) as here, sdk(system, gateway=1 - number) as there:
            stream = await here.responses.create(model="openai/r-long", input="hi", background=True, stream=True)
            seen: list[Any] = []
            iterator = aiter(stream)
            while len(text_of(seen)) < len("".join(words[:10])):
                seen.append(await anext(iterator))
            system.gateways[number].signal(leave)
            with pytest.raises((openai.APIError, httpx2.HTTPError)):
                [event async for event in iterator]
            gates[number].set()
            response_id, last = seen[0].response.id, seen[-1].sequence_number
            rest = await there.responses.retrieve(response_id, stream=True, starting_after=last)
            seen += [event async for event in rest]
        assert text_of(seen) == "".join(words)
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        await system.gateways[number].wait()
        system.gateways[number].start()
        await system.ready()


async def test_after_a_lost_worker_no_client_continues_with_another_answer(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    first, second = ([f"{name}{n} " for n in range(8)] for name in "ab")
    gate = asyncio.Event()
    system.fake.play("r-two", Answer(deltas=first, gate=gate, gate_after=4), Answer(deltas=second, delay_s=0.01))
    async with sdk(system) as client:
        response = await client.responses.create(model="openai/r-two", input="hi", background=True)
        stream = await client.responses.retrieve(response.id, stream=True)
        seen: list[Any] = []
        while "a3 " not in text_of(seen):
            seen.append(await anext(aiter(stream)))
        await stream.close()
        system.workers[0].stop()
        system.workers[0].start()
        await system.ended(response.id.removeprefix("resp_"), timeout_s=90)
        rest = await client.responses.retrieve(response.id, stream=True, starting_after=seen[-1].sequence_number)
        with pytest.raises(openai.APIError) as lost:
            await take(rest, seen)
    assert text_of(seen) == "".join(first[:4])
    assert lost.value.code == "worker_lost"


async def test_a_response_continues_an_earlier_one(system: System, client: Any) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    system.fake.play("r-first", Answer(deltas=(), tools=[ToolCall("c1", "look", ('{"x": 1}',))]))
    system.fake.play("r-second", Answer(deltas=WORDS))
    system.fake.play("r-third", Answer(deltas=("bye",)))
    first = await client.responses.create(model="openai/r-first", input="hi", instructions="Be brief.", tools=[tool])
    call = first.output[0]
    second = await client.responses.create(
        model="anthropic/r-second",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "found"}],
        instructions="Be kind.",
        tools=[tool],
    )
    assert second.output_text == TEXT
    assert second.previous_response_id == first.id
    await client.responses.create(model="openai/r-third", previous_response_id=second.id, input="and?")
    sent = calls_of(system, "r-third")[0].request["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"x": 1}'}
    assert [sent[at]["content"] for at in (0, 2, 3, 4)] == ["hi", "found", TEXT, "and?"]
    assert calls_of(system, "r-second")[0].request["system"] == "Be kind."


async def test_a_previous_response_that_cannot_be_continued_is_named(system: System, client: Any) -> None:
    gate = asyncio.Event()
    system.fake.play("r-unstored", Answer(deltas=WORDS))
    system.fake.play("r-running", Answer(deltas=WORDS, gate=gate))
    unstored = await client.responses.create(model="openai/r-unstored", input="hi", store=False)
    running = await client.responses.create(model="openai/r-running", input="hi", background=True)
    for previous, expected in [
        (unstored.id, "not stored"),
        ("resp_00", "no such response"),
        ("nothing", "no such response"),
        (running.id, "still in progress"),
    ]:
        with pytest.raises(openai.BadRequestError, match=expected):
            await client.responses.create(model="openai/r-unstored", input="hi", previous_response_id=previous)
    assert running.background

    async def runs() -> bool:
        return bool((await client.responses.retrieve(running.id)).status == "in_progress")

    await system.eventually(runs)
    gate.set()
    assert (await client.responses.retrieve(running.id)).background


async def test_earlier_items_may_be_referenced_by_their_ids(system: System) -> None:
    """`streamText` does so in every step and turn after the first."""
    looks = Answer(reasoning=("hm",), deltas=("I look. ",), tools=[ToolCall("c1", "look", ("{}",))])
    system.fake.play("r-turns", looks, Answer(deltas=WORDS), Answer(deltas=("bye",)))
    outcome = Outcome()
    async with Node() as node:
        await node.run("ai-turns", Ask(base=system.url, model="openai/r-turns"), outcome, lambda: None)
    assert (outcome.error, outcome.text) == (None, TEXT + "bye")
    sent = calls_of(system, "r-turns")[-1].request["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert [part["text"] for at in (1, 3) for part in sent[at]["content"]] == ["I look. ", TEXT]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
