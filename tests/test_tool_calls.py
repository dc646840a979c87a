"""Tool calls of every provider reach the client in one form."""

import json

import pytest

from shared.protocol import events
from shared.protocol.events import Usage
from tests.fakes import Answer, FakeProvider, ToolCall
from tests.provider_client import Make, ask, collect, failure, network, text_in
from tests.raw_server import answering
from tests.sse_client import Frame
from tests.system import System
from workers.providers.base import Delta, Finished, ToolCallDelta

BERN = ToolCall("call_b", "get_weather", ('{"ci', 'ty": "Bérn \\u', '00e9"', "}"))
ROME = ToolCall("call_r", "get_weather", ('{"city"', ': "Rome"}'))
NOW = ToolCall("call_n", "now", ("{}",))


def arguments_of(deltas: list[Delta | Finished]) -> dict[int, str]:
    """Return the joined fragments of each call."""
    joined: dict[int, str] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            joined[delta.index] = joined.get(delta.index, "") + delta.text
    return joined


@network
@pytest.mark.parametrize("frame_bytes", [1, None])
async def test_parallel_calls_are_separated_whatever_the_framing(
    fake: FakeProvider, make: Make, name: str, frame_bytes: int | None
) -> None:
    fake.play("m", Answer(deltas=["Let me see."], tools=(BERN, ROME, NOW), usage=(5, 7), frame_bytes=frame_bytes))
    deltas = await collect(make(name), ask("m"))
    assert text_in(deltas) == "Let me see."
    whole = [delta for delta in deltas if isinstance(delta, events.ToolCall)]
    assert [(call.index, call.name, json.loads(call.arguments)) for call in whole] == [
        (0, "get_weather", {"city": "Bérn é"}),
        (1, "get_weather", {"city": "Rome"}),
        (2, "now", {}),
    ]
    assert arguments_of(deltas) == {call.index: call.arguments for call in whole}
    begun = [delta for delta in deltas if isinstance(delta, ToolCallDelta) and delta.id is not None]
    # Once each, with the first fragment; generated if the provider has none.
    assert [(d.index, d.id, d.name) for d in begun] == [(call.index, call.id, call.name) for call in whole]
    assert len({call.id for call in whole}) == 3
    if name != "ollama":
        assert [call.id for call in whole] == ["call_b", "call_r", "call_n"]
    assert deltas[-1] == Finished("tool_calls", Usage(5, 7))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_call_without_arguments_gets_an_empty_object(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=(), tools=(ToolCall("c", "now", ()),)))
    (whole,) = [d for d in await collect(make(name), ask("m")) if isinstance(d, events.ToolCall)]
    assert (whole.arguments, whole.complete) == ("{}", True)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_invalid_arguments_are_a_retryable_error(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=(), tools=(ToolCall("c", "now", ('{"a":', "oops")),)))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == ("tool_call_invalid", True)
    assert "now" in error.message
    assert "oops" not in error.message


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_call_cut_off_by_the_token_limit_stays_incomplete(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=(), tools=(NOW, ToolCall("c", "cut", ('{"a":',))), finish_reason="length"))
    deltas = await collect(make(name), ask("m"))
    assert [d.name for d in deltas if isinstance(d, events.ToolCall)] == ["now"]
    assert arguments_of(deltas)[1] == '{"a":'
    assert isinstance(deltas[-1], Finished)
    assert deltas[-1].reason == "length"


async def test_a_server_may_repeat_id_and_name_or_leave_out_the_index(make: Make) -> None:
    def chunk(calls: object, finish_reason: str | None = None) -> bytes:
        choice = {"delta": {"tool_calls": calls}, "finish_reason": finish_reason}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    repeated = [
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": part}} for part in ('{"x"', ": 1", "}")
    ]
    unnumbered = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": "{}"}}]
    for body, calls in (
        (b"".join(chunk([part]) for part in repeated), [("f", '{"x": 1}')]),
        (chunk(unnumbered), [("f", "{}"), ("g", "{}")]),
    ):
        async with answering(body + chunk([], "stop") + b"data: [DONE]\n\n") as url:
            deltas = await collect(make("openai", OPENAI_BASE_URL=url), ask("m"))
        assert [(d.name, d.arguments) for d in deltas if isinstance(d, events.ToolCall)] == calls
        assert isinstance(deltas[-1], Finished)
        assert deltas[-1].reason == "tool_calls"


def chunk_of(calls: object, finish_reason: str | None = None) -> bytes:
    choice = {"delta": {"tool_calls": calls}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def call(index: int | None, call_id: str | None, name: str | None, arguments: str) -> dict[str, object]:
    fields = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        # Whole calls, all under one number, each with an id of its own.
        ([call(0, "a", "f", '{"x":1}'), call(0, "b", "g", "{}")], [("f", '{"x":1}'), ("g", "{}")]),
        # Whole calls without number and id.
        ([call(None, None, "f", '{"x":1}'), call(None, None, "f", '{"x":2}')], [("f", '{"x":1}'), ("f", '{"x":2}')]),
        # Two calls with one id.
        ([call(0, "a", "f", "{}"), call(1, "a", "g", "{}")], [("f", "{}"), ("g", "{}")]),
        # The name comes late.
        ([call(0, "a", None, '{"x"'), call(0, "a", "f", ":1}")], [("f", '{"x":1}')]),
    ],
)
async def test_calls_of_compatible_servers_are_separated(
    make: Make, chunks: list[dict[str, object]], calls: list[tuple[str, str]]
) -> None:
    body = b"".join(chunk_of([part]) for part in chunks) + chunk_of([], "tool_calls") + b"data: [DONE]\n\n"
    async with answering(body) as url:
        deltas = await collect(make("openai", OPENAI_BASE_URL=url), ask("m"))
    whole = [d for d in deltas if isinstance(d, events.ToolCall)]
    assert [(d.name, d.arguments) for d in whole] == calls
    assert len({d.id for d in whole}) == len(calls)
    assert arguments_of(deltas) == {d.index: d.arguments for d in whole}


async def test_ollama_may_omit_arguments(make: Make) -> None:
    line = {"message": {"tool_calls": [{"function": {"name": "now", "arguments": None}}]}, "done": True}
    async with answering(json.dumps(line).encode() + b"\n") as url:
        deltas = await collect(make("ollama", OLLAMA_HOST=url), ask("m"))
    assert [(d.name, d.arguments) for d in deltas if isinstance(d, events.ToolCall)] == [("now", "{}")]


# --- through the whole system


def call_events(frames: list[Frame]) -> list[dict[str, object]]:
    return [frame.data for frame in frames if frame.event == "tool_call"]


@network
async def test_calls_reach_the_client_and_their_results_can_be_sent_back(system: System, name: str) -> None:
    system.fake.play(f"tools-{name}", Answer(deltas=["One moment."], tools=(BERN, ROME), delay_s=0.01))
    async with await system.stream(f"tools-{name}", provider=name) as connection:
        frames = await connection.rest()
    sent = call_events(frames)
    whole = [call for call in sent if call["complete"]]
    assert [json.loads(str(call["arguments"]))["city"] for call in whole] == ["Bérn é", "Rome"]
    for call in whole:
        fragments = [c for c in sent if c["index"] == call["index"] and not c["complete"]]
        assert "".join(str(c["arguments"]) for c in fragments) == call["arguments"]
        assert [c["id"] for c in fragments if "id" in c] == [call["id"]]
    assert frames[-1].data["finish_reason"] == "tool_calls"
    status = await system.status(connection.stream_id)
    assert status["text"] == "One moment."
    made = status["tool_calls"]
    assert [call["id"] for call in made] == [call["id"] for call in whole]  # type: ignore[attr-defined]

    # The status has them in the form in which they are sent back.
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in whole]
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": status["text"], "tool_calls": made},
        *results,
    ]
    async with await system.stream("echo", provider=name, messages=messages) as connection:
        frames = await connection.rest()
    assert frames[-1].data["finish_reason"] == "stop"


async def test_a_client_that_resumes_within_a_call_gets_the_rest(system: System) -> None:
    fragments = ("{", *(f'"key{i}": {i}, ' for i in range(50)), '"last": 0}')
    system.fake.play("long-call", Answer(deltas=(), tools=(ToolCall("c", "f", fragments),)))
    async with await system.stream("long-call") as connection:
        whole = await connection.rest()
    for i, frame in enumerate(whole[:-1]):
        if frame.id is not None:
            async with await system.read(connection.stream_id, frame.id, gateway=1) as again:
                assert [f.data for f in await again.rest()] == [f.data for f in whole[i + 1 :]]
