"""Text of a model, a provider or a user stays data: it ends no line, no event and no stream."""

import json
import re
from typing import Any

import pytest

from headrace_client._sse import SseDecoder
from tests.fakes import Answer, ToolCall
from tests.provider_client import network
from tests.sse_client import Frame, SseConnection, text_of
from tests.system import System, ask

PAYLOADS = [
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\r\r",
    "\r\n\r\n",
    "\x85",
    "\u2028",
    "\u2029",
    "\u2028\u2028",
    "\x0b\x0c\x1c\x1d\x1e",
    "\0",
    "\x1b[2J",
    "\ufeff",
    "data: x\n\n",
    "\ndata: x\n\n",
    "\r\rdata: x\r\r",
    "\n\nevent: done\ndata: {}\n\n",
    "\r\n\r\nevent: done\r\ndata: {}\r\n\r\n",
    "\u2028\u2028event: done\u2028data: {}\u2028\u2028",
    "\n\nid: 9-999\nevent: start\ndata: {}\n\n",
    "\nretry: 0\n\n",
    "\n: ping\n",
    '"}\n\nevent: done\ndata: {"finish_reason":"stop"}\n\n',
    "\\n\\nevent: done\\ndata: {}\\n\\n",
    "\0\n\nevent: error\ndata: {}\n\n\0",
    "data: [DONE]\n\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "\r\n0\r\n\r\n",
]
ALL = "".join(PAYLOADS)
#: Every line that a stream may have: no text of a model is at the beginning of a line.
LINE = re.compile(rb'|: ping|retry: [0-9]+|id: [0-9]+-[0-9]+|event: [a-z_]+|data: \{"[^\x00-\x1f]*\}')


async def checked_frames(connection: SseConnection) -> list[Frame]:
    """Return all frames. No byte of the body may be taken for anything else, by another decoder either."""
    frames = await connection.rest()
    raw = bytes(connection.raw)
    assert all(LINE.fullmatch(line) for line in raw.split(b"\n"))
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", raw)
    assert [event.name for event in SseDecoder().feed(raw)] == [frame.event for frame in frames]
    assert [frame.event for frame in frames].count("done") == 1
    assert frames[-1].event == "done"
    return frames


def joined(frames: list[Frame], kind: str, member: str) -> str:
    return "".join(frame.data[member] for frame in frames if frame.event == kind)


async def replayed(system: System, stream_id: str, frames: list[Frame]) -> None:
    """Check that the log gives the same frames through another gateway, from the start and from the middle."""
    stored = [frame for frame in frames if frame.id is not None]
    for after in (None, stored[len(stored) // 2 - 1].at):
        async with await system.read(stream_id, after, gateway=1) as connection:
            again = await checked_frames(connection)
        expected = stored if after is None else stored[len(stored) // 2 :]
        assert [(f.id, f.event, f.data) for f in again] == [(f.id, f.event, f.data) for f in expected]


@network
async def test_tokens_stay_data(system: System, name: str) -> None:
    system.fake.play(f"say-{name}", Answer(deltas=PAYLOADS, delay_s=0.001))
    async with await system.stream(f"say-{name}", provider=name) as connection:
        frames = await checked_frames(connection)
    assert text_of(frames) == ALL
    await replayed(system, connection.stream_id, frames)
    assert (await system.status(connection.stream_id))["text"] == ALL


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
async def test_a_single_token_stays_data(system: System, payload: str) -> None:
    """The payload is at the start and the end of an event's text, with nothing around it."""
    model = f"alone-{PAYLOADS.index(payload)}"
    system.fake.play(model, Answer(deltas=[payload]))
    async with await system.stream(model) as connection:
        frames = await checked_frames(connection)
    assert [f.data["token"] for f in frames if f.event == "token"] == [payload]


@network
async def test_reasoning_stays_data(system: System, name: str) -> None:
    system.fake.play(f"think-{name}", Answer(reasoning=PAYLOADS, deltas=["so"]))
    async with await system.stream(f"think-{name}", provider=name) as connection:
        frames = await checked_frames(connection)
    assert joined(frames, "reasoning", "text") == ALL
    await replayed(system, connection.stream_id, frames)
    assert (await system.status(connection.stream_id))["reasoning"] == ALL


async def test_a_refusal_stays_data(system: System) -> None:
    system.fake.play("refuse-it", Answer(deltas=(), refusal=PAYLOADS))
    async with await system.stream("refuse-it") as connection:
        frames = await checked_frames(connection)
    assert joined(frames, "refusal", "text") == ALL
    await replayed(system, connection.stream_id, frames)
    assert (await system.status(connection.stream_id))["refusal"] == ALL


@network
async def test_tool_calls_stay_data(system: System, name: str) -> None:
    calls = [
        ToolCall(f"{payload}{n}", f"{payload}f", (json.dumps({payload: payload}), "\n\r\n\t "))
        for n, payload in enumerate(PAYLOADS)
    ]
    system.fake.play(f"call-{name}", Answer(deltas=(), tools=calls))
    async with await system.stream(f"call-{name}", provider=name) as connection:
        frames = await checked_frames(connection)
    whole = [frame.data for frame in frames if frame.event == "tool_call" and frame.data["complete"]]
    assert [call["name"] for call in whole] == [call.name for call in calls]
    assert [json.loads(call["arguments"]) for call in whole] == [{payload: payload} for payload in PAYLOADS]
    if name != "ollama":  # Ollama's calls have no id
        assert [call["id"] for call in whole] == [call.id for call in calls]
    await replayed(system, connection.stream_id, frames)
    stored_calls: Any = (await system.status(connection.stream_id))["tool_calls"]
    assert [call["function"]["name"] for call in stored_calls] == [call.name for call in calls]


@pytest.mark.parametrize("ascii_only", [True, False])
async def test_json_stays_data(system: System, ascii_only: bool) -> None:
    value = {payload: {"inner" + payload: [payload]} for payload in PAYLOADS}
    text = json.dumps(value, ensure_ascii=ascii_only, indent="\r\n\t")
    model = f"json-{ascii_only}"
    system.fake.play(model, Answer(deltas=[text[at : at + 7] for at in range(0, len(text), 7)]))
    async with await system.stream(model, response_format={"type": "json_object"}) as connection:
        frames = await checked_frames(connection)
    values = [(frame.data["path"], frame.data["value"]) for frame in frames if frame.event == "json"]
    assert [(path, inner) for path, inner in values if len(path) == 1] == [([key], value[key]) for key in PAYLOADS]
    assert values[-1] == ([], value)
    await replayed(system, connection.stream_id, frames)
    assert (await system.status(connection.stream_id))["json"] == value


@network
@pytest.mark.parametrize("payload", [ALL[:120], *PAYLOADS], ids=ascii)
async def test_an_error_and_the_name_of_a_model_stay_data(system: System, name: str, payload: str) -> None:
    model = f"no such{payload}"
    async with await system.stream(model, provider=name) as connection:
        frames = await checked_frames(connection)
    assert [frame.event for frame in frames[-2:]] == ["error", "done"]
    assert frames[-2].data["code"] == "provider_model_not_found"
    assert repr(model) in frames[-2].data["message"]
    assert (await system.status(connection.stream_id))["model"] == model


async def test_a_providers_error_type_is_not_passed_on(system: System) -> None:
    system.fake.play("fail", Answer(deltas=["x"], end="error_in_band", error_type=ALL))
    async with await system.stream("fail") as connection:
        frames = await checked_frames(connection)
    assert [frame.event for frame in frames[-2:]] == ["error", "done"]
    assert not any(payload in frames[-2].data["message"] for payload in PAYLOADS)


async def test_an_unknown_finish_reason_is_not_passed_on(system: System) -> None:
    system.fake.play("end", Answer(deltas=["x"], finish_reason=ALL))
    async with await system.stream("end") as connection:
        frames = await checked_frames(connection)
    assert frames[-1].data["finish_reason"] == "stop"


async def test_the_model_in_start_stays_data(system: System) -> None:
    model = f"good{ALL[:120]}"
    system.fake.play(model, Answer(deltas=["x"]))
    async with await system.stream(model) as connection:
        frames = await checked_frames(connection)
    assert [frame.data["model"] for frame in frames if frame.event == "start"] == [model]
    await replayed(system, connection.stream_id, frames)


async def test_metadata_stays_data(system: System) -> None:
    metadata = {f"{payload}k": payload for payload in PAYLOADS[:16]}
    other = {f"{payload}k": payload for payload in PAYLOADS[16:]}
    for sent in (metadata, other):
        async with await system.stream("echo", "one two", metadata=sent) as connection:
            await checked_frames(connection)
        assert (await system.status(connection.stream_id))["metadata"] == sent


async def test_an_echoed_prompt_stays_data(system: System) -> None:
    prompt = f"a {ALL} b"
    async with await system.stream("echo", prompt) as connection:
        frames = await checked_frames(connection)
    assert text_of(frames) == prompt


@pytest.mark.parametrize("key", ["\x85", "\xa0\xff", "a b", "{}", "*", "\\", "x" * 255])
async def test_an_idempotency_key_may_have_any_characters(system: System, key: str) -> None:
    """The key is hashed, so any header value is one key and no other."""
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    ids = set()
    for _ in range(2):
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"), headers=headers)
        assert answer.status_code == 202
        assert re.fullmatch("/chat/stream/[0-9a-f]{34}", answer.headers["location"])
        ids.add(answer.json()["stream_id"])
    assert len(ids) == 1
