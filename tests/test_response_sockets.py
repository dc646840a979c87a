"""Responses over WebSocket: OpenAI's SDK and a plain client, several responses at once, and resume at any gateway."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from websocket import create_connection
from websockets.exceptions import ConnectionClosed

from tests.fakes.answer import Answer, ToolCall, Turnstile
from tests.openai_client import openai_client
from tests.response_socket import open_socket, response_id, text_of
from tests.sse_client import open_sse
from tests.system import System

WORDS = tuple(f"w{i} " for i in range(12))
TEXT = "".join(WORDS)
OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}


async def over_http(system: System, response: str, *, gateway: int = 0) -> list[dict[str, Any]]:
    url = f"{system.gateways[gateway].url}/v1/responses/{response}?stream=true"
    async with await open_sse("GET", url) as connection:
        return [frame.data async for frame in connection.frames()]


async def test_openais_sdk_has_a_conversation_on_one_connection(system: System) -> None:
    system.fake.play("socket-sdk", Answer(deltas=WORDS), Answer(deltas=("again",)))
    async with openai_client(system) as client, client.responses.connect() as connection:
        untyped: Any = connection  # its events are a union of seventy classes
        seen: list[Any] = []
        for previous in (None, True):
            named = {} if previous is None else {"previous_response_id": seen[-1].response.id}
            await untyped.response.create(model="openai/socket-sdk", input="hi", **named)
            async for event in untyped:
                seen.append(event)
                if event.type == "response.completed":
                    break
    first, second = (event.response for event in seen if event.type == "response.completed")
    assert (first.output_text, second.output_text) == (TEXT, "again")
    assert second.previous_response_id == first.id
    sent = [call for call in system.fake.calls if call.model == "socket-sdk"][-1].request["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]


async def test_the_client_of_azures_and_xais_documentation_works(system: System) -> None:
    """It names its own origin, as browsers do."""
    system.fake.play("socket-other", Answer(deltas=WORDS))

    def ask() -> str:
        made: Any = create_connection(f"{system.url.replace('http', 'ws', 1)}/v1/responses", timeout=20)
        made.send(json.dumps({"type": "response.create", "model": "openai/socket-other", "input": "hi"}))
        seen = [json.loads(made.recv())]
        while seen[-1]["type"] != "response.completed":
            seen.append(json.loads(made.recv()))
        made.close()
        return text_of(seen)

    assert await asyncio.to_thread(ask) == TEXT


async def test_events_are_those_of_server_sent_events(system: System) -> None:
    made = [ToolCall("c1", "look", ('{"a"', ": 1}"))]
    system.fake.play("socket-same", Answer(deltas=WORDS, reasoning=("so",), tools=made))
    tools = [{"type": "function", "name": "look", "parameters": OBJECT}]
    async with open_socket(system) as socket:
        await socket.create("openai/socket-same", tools=tools)
        seen = await socket.rest()
        await socket.create("openai/socket-same", tools=tools, stream_id="one")
        named = await socket.rest("one")
    assert seen == await over_http(system, response_id(seen), gateway=1)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert all(event.pop("stream_id") == "one" for event in named)
    assert named == await over_http(system, response_id(named))


async def test_a_response_that_is_cut_at_any_event_is_resumed_at_another_gateway(system: System) -> None:
    words, turnstile = WORDS[:4], Turnstile()
    system.fake.play("socket-cut", Answer(deltas=words, turnstile=turnstile))
    async with open_socket(system) as first:
        await first.create("openai/socket-cut")
        at_first = await first.until("response.in_progress")
        response = response_id(at_first)
        await turnstile.allow(len(words))
        whole = at_first + await first.rest()
    for at in range(-1, len(whole)):
        async with open_socket(system, gateway=at % 2) as socket:
            await socket.send("response.resume", response_id=response, starting_after=at)
            if rest := whole[at + 1 :]:
                assert await socket.rest() == rest
            await socket.send("response.resume", response_id="resp_none", stream_id="next")  # the connection goes on
            assert (await socket.next("next"))["error"]["code"] == "stream_not_found"


async def test_a_live_response_is_cut_and_resumed_after_every_token(system: System) -> None:
    turnstile = Turnstile()
    system.fake.play("socket-live", Answer(deltas=WORDS, turnstile=turnstile))
    seen: list[dict[str, Any]] = []
    for at in range(len(WORDS)):
        async with open_socket(system, gateway=at % 2) as socket:
            if seen:
                last = {"response_id": response_id(seen), "starting_after": seen[-1]["sequence_number"]}
                await socket.send("response.resume", **last)
            else:
                await socket.create("openai/socket-live", background=True)
            await turnstile.allow(at + 1)
            seen += await socket.until("response.output_text.delta")
            socket.cut()
    async with open_socket(system, gateway=1) as socket:
        last = {"response_id": response_id(seen), "starting_after": seen[-1]["sequence_number"]}
        await socket.send("response.resume", **last)
        seen += await socket.rest()
    assert text_of(seen) == TEXT
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["type"] == "response.completed"
    assert len([call for call in system.fake.calls if call.model == "socket-live"]) == 1


async def test_tracks_run_at_once_and_each_is_in_order(system: System) -> None:
    slow = Turnstile()
    system.fake.play("socket-slow", Answer(deltas=WORDS, turnstile=slow))
    system.fake.play("socket-fast", Answer(deltas=("a", "b")))
    async with open_socket(system) as socket:
        await socket.create("openai/socket-slow", stream_id="one")
        begun = await socket.until("response.in_progress", "one")
        await socket.create("openai/socket-fast", stream_id="one")  # after the slow one
        await socket.create("openai/socket-fast", stream_id="two")
        await socket.create("openai/socket-fast")
        assert text_of(await socket.rest("two")) == text_of(await socket.rest()) == "ab"
        await slow.allow(len(WORDS))
        assert text_of(begun + await socket.rest("one")) == TEXT
        assert text_of(await socket.rest("one")) == "ab"


async def test_a_response_is_cancelled_and_others_go_on(system: System) -> None:
    held = Turnstile()
    system.fake.play("socket-held", Answer(deltas=WORDS, turnstile=held))
    async with open_socket(system) as socket, open_socket(system, gateway=1) as other:
        for track in ("one", "two"):
            await socket.create("openai/socket-held", stream_id=track)
        one, two = [await socket.until("response.in_progress", track) for track in ("one", "two")]
        await other.send("response.cancel", response_id=response_id(one), stream_id="any")
        accepted = await other.next("any")
        assert (accepted["type"], accepted["response_id"]) == ("response.cancel.accepted", response_id(one))
        last = (await socket.rest("one"))[-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        await held.allow(len(WORDS))
        assert text_of(two + await socket.rest("two")) == TEXT


async def test_an_idempotent_frame_is_answered_by_one_response(system: System) -> None:
    held = Turnstile()
    system.fake.play("socket-once", Answer(deltas=WORDS, turnstile=held))
    async with open_socket(system) as socket:
        await socket.create("openai/socket-once", idempotency_key="socket-once-1", background=True)
        first = await socket.until("response.in_progress")
        socket.cut()
    async with open_socket(system, gateway=1) as socket:
        await socket.create("openai/socket-once", idempotency_key="socket-once-1", background=True)
        await held.allow(len(WORDS))
        again = await socket.rest()
    assert response_id(first) == response_id(again)
    assert text_of(again) == TEXT


@pytest.mark.parametrize("stores", [True, False])
async def test_a_conversation_continues_by_its_last_response(system: System, *, stores: bool) -> None:
    """A stored response is continued anywhere, another one on its connection only."""
    model = f"socket-chain-{stores}"
    made = [ToolCall("c1", "look", ("{}",))]
    system.fake.play(model, Answer(deltas=("one",), tools=made), Answer(deltas=("two",)), Answer(deltas=("three",)))
    tools = [{"type": "function", "name": "look", "parameters": OBJECT}]
    result = [{"type": "function_call_output", "call_id": "c1", "output": "seen"}]
    options: dict[str, Any] = {"tools": tools, "store": stores}
    async with open_socket(system) as socket:
        await socket.create(f"openai/{model}", instructions="short", **options)
        first = response_id(await socket.rest())
        await socket.create(f"openai/{model}", result, previous_response_id=first, stream_id="fork", **options)
        second = await socket.rest("fork")
        assert second[-1]["response"]["previous_response_id"] == first
        await socket.create(f"openai/{model}", "more", previous_response_id=response_id(second), **options)
        assert text_of(await socket.rest()) == "three"
    calls = [call.request["messages"] for call in system.fake.calls if call.model == model]
    roles = [[message["role"] for message in messages] for messages in calls]
    assert roles == [
        ["system", "user"],
        ["user", "assistant", "tool"],
        ["user", "assistant", "tool", "assistant", "user"],
    ]
    async with open_socket(system, gateway=1) as socket:
        await socket.create(f"openai/{model}", "more", previous_response_id=response_id(second), **options)
        last = (await socket.rest())[-1]
    if stores:
        assert last["type"] == "response.completed"
    else:
        assert (last["status"], last["error"]["code"]) == (400, "previous_response_not_found")
        assert last["error"]["param"] == "previous_response_id"


async def test_a_prepared_request_generates_nothing(system: System) -> None:
    system.fake.play("socket-warm", Answer(deltas=("warm",)))
    async with open_socket(system) as socket:
        await socket.create("openai/socket-warm", "first", generate=False, store=False)
        prepared = await socket.rest()
        assert [event["type"] for event in prepared] == [
            *("response.created", "response.in_progress", "response.completed")
        ]
        assert prepared[-1]["response"]["output"] == []
        assert not [call for call in system.fake.calls if call.model == "socket-warm"]
        previous = {"previous_response_id": response_id(prepared)}
        await socket.create("openai/socket-warm", [{"role": "user", "content": "then"}], store=False, **previous)
        assert text_of(await socket.rest()) == "warm"
        await socket.create("openai/socket-warm", "x", temperature=9, generate=False)
        assert (await socket.next())["error"]["param"] == "temperature"
    (call,) = [call for call in system.fake.calls if call.model == "socket-warm"]
    assert [message["content"] for message in call.request["messages"]] == ["first", "then"]


GARBAGE = {
    "": "invalid_json",
    "{": "invalid_json",
    "[]": "invalid_request",
    '{"type": "response.create", "a": ' + "[" * 100_000: "invalid_json",
    "{}": "invalid_request",
    '{"type": 1}': "invalid_request",
    '{"type": "session.update"}': "invalid_request",
    '{"type": "response.create"}': "invalid_request",
    '{"type": "response.create", "model": "openai/x", "input": 1}': "invalid_request",
    '{"type": "response.create", "model": "openai/x", "input": "hi", "stream_id": ""}': "invalid_request",
    '{"type": "response.create", "model": "nobody/x", "input": "hi"}': "model_not_found",
    '{"type": "response.resume"}': "invalid_request",
    '{"type": "response.resume", "response_id": "resp_x", "starting_after": "1"}': "invalid_request",
    '{"type": "response.resume", "response_id": "x"}': "stream_not_found",
    '{"type": "response.cancel", "response_id": "resp_x"}': "stream_not_found",
}


async def test_garbage_gets_an_error_and_the_connection_goes_on(system: System) -> None:
    system.fake.play("socket-after", Answer(deltas=("fine",)))
    async with open_socket(system) as socket:
        for text, code in GARBAGE.items():
            await socket.connection.send(text)
            answer = json.loads(await asyncio.wait_for(socket.connection.recv(), 20))
            assert (answer["type"], answer["error"]["code"]) == ("error", code), (text[:80], answer)
            assert answer["status"] >= 400
            assert answer["error"]["message"]
        await socket.connection.send(b"\x00\xff")
        assert "binary" in (await socket.next())["error"]["message"]
        await socket.send("response.steer", previous_response_id="resp_x", input="no")
        refused = await socket.next()
        assert (refused["type"], refused["error"]["code"]) == ("response.steer.failed", "steering_not_supported")
        assert refused["steer"] == {"previous_response_id": "resp_x", "input": "no"}
        await socket.create("openai/socket-after")
        assert text_of(await socket.rest()) == "fine"


async def test_a_message_that_is_too_large_ends_the_connection_with_the_reason(system: System) -> None:
    async with open_socket(system) as socket:
        await socket.create("openai/x", "y" * (1024 * 1024))  # the shared system takes bodies of 1 MiB
        code, reason = await socket.closed()
    assert code == 1009, reason
    async with open_socket(system) as socket:  # in fragments
        with suppress(ConnectionClosed):
            await socket.connection.send("z" * 65_536 for _ in range(64))
        code, reason = await socket.closed()
    assert code == 1009, reason


async def test_a_large_message_within_the_limit_is_answered(system: System) -> None:
    system.fake.play("socket-large", Answer(deltas=("read",)))
    async with open_socket(system) as socket:
        await socket.create("openai/socket-large", "x" * 900_000)
        assert text_of(await socket.rest()) == "read"


async def test_a_long_message_counts_as_a_body_only_until_its_response_begins(system: System) -> None:
    held = Turnstile()
    system.fake.play("socket-padded", Answer(deltas=WORDS, turnstile=held))

    async def nothing_taken() -> bool:
        metrics = (await system.http.get(f"{system.url}/metrics")).text
        return "headrace_body_memory_bytes 0.0" in metrics.splitlines()

    async with open_socket(system) as socket:
        await socket.create("openai/socket-padded")
        begun = await socket.until("response.in_progress")
        resume = json.dumps({"type": "response.resume", "response_id": response_id(begun), "stream_id": "again"})
        await socket.connection.send(" " * 900_000 + resume)
        again = await socket.until("response.in_progress", "again")
        await system.eventually(nothing_taken)
        await held.allow(len(WORDS))
        assert begun + await socket.rest() == [
            {name: value for name, value in event.items() if name != "stream_id"}
            for event in again + await socket.rest("again")
        ]


async def test_a_retried_handshake_makes_no_frame_a_retry(system: System) -> None:
    system.fake.play("socket-retried", Answer(deltas=("one",)), Answer(deltas=("two",)))
    async with open_socket(system, headers={"X-Stainless-Retry-Count": "1"}) as socket:
        for text in ("one", "two"):
            await socket.create("openai/socket-retried")
            assert text_of(await socket.rest()) == text
