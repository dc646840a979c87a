"""One prompt gives one stream, resumable at every event, from any gateway."""

import asyncio

import pytest

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.sse_client import Frame, open_sse, text_of
from tests.system import System, ask

WORDS = [f"word{i} " for i in range(20)]


def ids(frames: list[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id is not None]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama", "demo"])
async def test_every_provider_streams_to_the_client(system: System, provider: str) -> None:
    model = "demo" if provider == "demo" else "echo"
    async with await system.stream(model, "tell me five nice words", provider=provider) as connection:
        frames = await connection.rest()
    assert connection.status == 200
    assert connection.headers["content-type"].startswith("text/event-stream")
    start = next(frame for frame in frames if frame.id is not None)
    assert (frames[0].event, start.event) == ("queued", "start")  # it may be queued for some heartbeats
    assert start.data["provider"] == provider
    assert frames[-1].event == "done"
    assert frames[-1].data["finish_reason"] == "stop"
    assert frames[-1].data["usage"]["estimated"] is False
    if provider != "demo":
        assert text_of(frames) == "tell me five nice words"
    status = await system.status(connection.stream_id, gateway=1)
    assert status["text"] == text_of(frames)
    assert status["status"] == "completed"


async def test_events_have_ids_in_sequence_and_the_documented_fields(system: System) -> None:
    async with await system.stream("echo", "hello there") as connection:
        frames = await connection.rest()
    assert connection.headers["location"] == f"/chat/stream/{connection.stream_id}"
    assert frames[0] == Frame("queued", {"stream_id": connection.stream_id, "position": 1}, None, 1000)
    assert all(frame.retry is None for frame in frames[1:])
    epochs, seqs = zip(*(event_id.split("-") for event_id in ids(frames)), strict=True)
    assert len(set(epochs)) == 1
    assert list(map(int, seqs)) == list(range(1, len(seqs) + 1))
    indexes = [(f.data["token_index"], f.data["n"]) for f in frames if f.event == "token"]
    assert sum(n for _, n in indexes) == 2
    assert indexes[0][0] == 0


async def test_a_client_may_reconnect_at_every_event(system: System) -> None:
    """The client disconnects after each event in turn, and reads the rest from the other gateway."""
    gate = asyncio.Event()
    system.fake.play("every-event", Answer(deltas=WORDS, delay_s=0.01, gate=gate, gate_after=len(WORDS)))
    stream_id = await system.post("every-event")
    whole: list[Frame] = []
    async with await system.read(stream_id) as connection:
        whole += await connection.take(2)
    while text_of(whole) != "".join(WORDS):
        async with await system.read(stream_id, whole[-1].id, gateway=len(whole) % 2) as connection:
            whole += await connection.take(1)
    gate.set()
    async with await system.read(stream_id, whole[-1].id) as connection:
        whole += await connection.rest()
    assert whole[-1].event == "done"
    async with await system.read(stream_id) as connection:
        assert [(f.id, f.event, f.data) for f in await connection.rest()] == [(f.id, f.event, f.data) for f in whole]
    for i, frame in enumerate(whole[:-1]):
        async with await system.read(stream_id, frame.id, gateway=i % 2) as connection:
            assert ids(await connection.rest()) == ids(whole[i + 1 :])


async def test_several_viewers_get_the_same_events(system: System) -> None:
    system.fake.play("two-viewers", Answer(deltas=WORDS, delay_s=0.01))
    async with await system.stream("two-viewers") as first:
        await first.next("token")
        second = await system.read(first.stream_id, gateway=1)
        third = await system.read(first.stream_id, gateway=0)
        all_frames = await asyncio.gather(first.rest(), second.rest(), third.rest())
    assert text_of(all_frames[1]) == text_of(all_frames[2]) == "".join(WORDS)
    assert ids(all_frames[0]) == ids(all_frames[1])[-len(ids(all_frames[0])) :]


async def test_cancel_from_another_gateway_closes_the_provider(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("cancel-me", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("cancel-me", max_tokens=999) as connection:
        await connection.until_text("".join(WORDS[:3]))
        call = [c for c in system.fake.calls if c.model == "cancel-me"][-1]
        for _ in range(2):  # again changes nothing
            answer = await system.http.post(f"{system.gateways[1].url}/chat/{connection.stream_id}/cancel")
            assert answer.status_code == 202
        rest = await connection.rest()
    await call.wait_closed()
    assert call.closed_by_client
    assert rest[-1].event == "done"
    assert rest[-1].data["finish_reason"] == "cancelled"
    assert rest[-1].data["usage"]["estimated"] is True
    status = await system.status(connection.stream_id)
    assert (status["status"], status["text"]) == ("cancelled", "".join(WORDS[:3]))


async def test_deleting_a_running_stream_ends_it_and_removes_its_data(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("delete-me", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("delete-me") as connection:
        await connection.next("token")
        call = [c for c in system.fake.calls if c.model == "delete-me"][-1]
        url = f"{system.gateways[1].url}/chat/{connection.stream_id}"
        assert (await system.http.delete(url)).status_code == 204
        rest = await connection.rest()
    assert (rest[-1].event, rest[-1].id) == ("done", None)
    assert rest[-1].data["reason"] == "deleted"
    await call.wait_closed()
    assert (await system.http.get(url)).status_code == 410
    assert (await system.http.delete(url)).status_code == 410
    async with system.broker.client() as client:
        left = [key async for key in client.scan_iter(match=f"*{connection.stream_id}*")]
    assert [key.rsplit(b":", 1)[1] for key in left] == [b"tombstone"]


async def test_a_url_with_a_ticket_needs_no_header(system: System) -> None:
    answer = await system.http.post(f"{system.url}/chat", json=ask("echo", "one two three"))
    body = answer.json()
    assert answer.status_code == 202
    async with await open_sse("GET", system.gateways[1].url + body["stream_url"]) as connection:
        assert text_of(await connection.rest()) == "one two three"
    forged = body["stream_url"][:-3] + ("xyz" if body["stream_url"].endswith("abc") else "abc")
    refused = await system.http.get(system.url + forged)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_ticket")
    other = (await system.http.post(f"{system.url}/chat", json=ask("echo"))).json()
    foreign = f"/chat/stream/{other['stream_id']}?ticket={body['stream_url'].split('ticket=')[1]}"
    assert (await system.http.get(system.url + foreign)).status_code == 401
    assert (await system.http.get(system.url + body["status_url"])).json()["text"] == "one two three"


async def test_a_heartbeat_is_one_comment_line(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, heartbeat_s=0.2)
    gate = asyncio.Event()
    system.fake.play("silent", Answer(deltas=WORDS, gate=gate, gate_after=1))
    async with await system.stream("silent") as connection:
        await connection.next("token")
        while connection.raw.count(b": ping\n") < 3:
            await connection.read_some()
        gate.set()
        rest = await connection.rest()
    assert b": ping\n\n" not in connection.raw
    assert rest[-1].event == "done"
