"""Every row of the cursor table (rule R2), over the wire."""

import asyncio

import httpx2
import pytest

from shared.broker.keys import state_key, tail_key
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Turnstile
from tests.sse_client import Frame, open_sse, text_of
from tests.system import System, ask

WORDS = [f"w{i} " for i in range(6)]


@pytest.fixture
async def ended(system: System) -> tuple[str, list[Frame]]:
    """An ended stream and its events: each word is one, because it is sent when the one before has been read."""
    turnstile = Turnstile()
    system.fake.play("table", Answer(deltas=WORDS, turnstile=turnstile))
    stream_id = await system.post("table")
    events: list[Frame] = []
    async with await system.read(stream_id) as connection:
        for count in range(1, len(WORDS) + 1):
            await turnstile.allow(count)
            while sum(f.event == "token" for f in events) < count:
                events += await connection.take(1)
        return stream_id, [*events, *(f for f in await connection.rest() if f.id)]


@pytest.mark.parametrize("cursor", [None, "", "0", "0-0", "-1"])
async def test_a_cursor_of_zero_reads_from_the_start(
    system: System, ended: tuple[str, list[Frame]], cursor: str | None
) -> None:
    stream_id, events = ended
    async with await system.read(stream_id, cursor) as connection:
        assert [f.id for f in await connection.rest()] == [f.id for f in events]
    assert events[0].data["reset"] is False


async def test_an_id_of_the_readable_epoch_continues_after_it(system: System, ended: tuple[str, list[Frame]]) -> None:
    stream_id, events = ended
    async with await system.read(stream_id, events[3].at) as connection:
        frames = await connection.rest()
    assert [f.id for f in frames] == [f.id for f in events[4:]]
    assert frames[0].retry == 1000  # inside the first block of every connection


@pytest.mark.parametrize("query_is", ["stale", "alone"])
async def test_the_header_takes_precedence_over_the_query(
    system: System, ended: tuple[str, list[Frame]], query_is: str
) -> None:
    stream_id, events = ended
    url = f"{system.url}/chat/stream/{stream_id}?last_event_id={events[1].at}"
    headers = {"Last-Event-ID": events[4].at} if query_is == "stale" else {}
    async with await open_sse("GET", url, headers=headers) as connection:
        first = (await connection.take(1))[0]
    assert first.id == (events[5] if query_is == "stale" else events[2]).id


async def test_an_id_of_another_epoch_resets(system: System, ended: tuple[str, list[Frame]]) -> None:
    stream_id, events = ended
    epoch = int(events[0].at.split("-")[0])
    for other in (f"{epoch + 1}-2", f"{epoch - 1}-99"):
        async with await system.read(stream_id, other) as connection:
            frames = await connection.rest()
        assert frames[0].event == "start"
        assert frames[0].data == events[0].data | {"reset": True}
        assert [f.id for f in frames] == [f.id for f in events]


async def test_an_id_of_another_epoch_resets_a_running_stream(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("running-reset", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("running-reset") as first:
        epoch = int((await first.next("token")).at.split("-")[0])
        async with await system.read(first.stream_id, f"{epoch + 7}-1") as second:
            frames = await second.take(2)
            assert (frames[0].event, frames[0].data["reset"]) == ("start", True)
            gate.set()
            assert text_of(frames + await second.rest()) == "".join(WORDS)


async def test_every_id_of_a_running_stream_continues_after_it(start_system: StartSystem) -> None:
    """The first events are in chunks, the last in the tail."""
    system = await start_system(gateways=1, workers=1, cap=16, window=8)
    words, turnstile = [f"w{i} " for i in range(30)], Turnstile()
    system.fake.play("long", Answer(deltas=words, turnstile=turnstile))
    stream_id = await system.post("long")
    events: list[Frame] = []
    async with await system.read(stream_id) as connection:
        for count in range(1, len(words)):
            await turnstile.allow(count)
            while sum(f.event == "token" for f in events) < count:
                events += [f for f in await connection.take(1) if f.id]
        async with system.broker.client() as client:
            assert await client.hexists(state_key(stream_id), "chunks")  # type: ignore[misc]
            assert await client.xlen(tail_key(stream_id)) > 1
        for i, cursor in enumerate([*events[:-1], None]):
            async with await system.read(stream_id, cursor.at if cursor else None) as later:
                expected = events[i + 1 :] if cursor else events
                assert [f.id for f in await later.take(len(expected))] == [f.id for f in expected]
        await turnstile.allow(len(words))
        assert text_of([*events, *await connection.rest()]) == "".join(words)


async def test_an_id_beyond_the_end_of_an_ended_stream_resets(system: System, ended: tuple[str, list[Frame]]) -> None:
    stream_id, events = ended
    epoch, seq = events[-1].at.split("-")
    async with await system.read(stream_id, f"{epoch}-{int(seq) + 1}") as connection:
        frames = await connection.rest()
    assert frames[0].data["reset"] is True
    assert text_of(frames) == "".join(WORDS)


async def test_an_id_beyond_the_end_of_a_running_stream_waits_then_resets(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=1, heartbeat_s=0.2)
    gate = asyncio.Event()
    system.fake.play("held", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("held") as first:
        token = await first.next("token")
        epoch = token.at.split("-")[0]
        async with await system.read(first.stream_id, f"{epoch}-500") as second:
            start = await second.next("start")
            assert start.data["reset"] is True
            before, _, _ = second.raw.partition(b"event:")
            assert before.count(b": ping\n") > 5  # held, with heartbeats
            gate.set()
            assert text_of(await second.rest()) == "".join(WORDS)


@pytest.mark.parametrize("cursor", ["abc", "1", "1-", "-2", "1-2-3", "1_2", "٣-٤", "9" * 40 + "-1", "1-2 "])
async def test_a_malformed_cursor_is_refused(system: System, ended: tuple[str, list[Frame]], cursor: str) -> None:
    url = f"{system.url}/chat/stream/{ended[0]}"
    answer = await system.http.get(url, params={"last_event_id": cursor})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_last_event_id"
    beside_a_good_one = await system.http.get(url, params={"last_event_id": cursor}, headers={"Last-Event-ID": "0"})
    assert beside_a_good_one.status_code == 400


async def test_the_last_id_of_an_ended_stream_gets_204(system: System, ended: tuple[str, list[Frame]]) -> None:
    stream_id, events = ended
    answer = await system.http.get(f"{system.url}/chat/stream/{stream_id}", headers={"Last-Event-ID": events[-1].at})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_the_last_id_of_an_ended_stream_by_post_gets_done_again(system: System) -> None:
    key = {"Idempotency-Key": "post-after-the-end"}
    async with await system.stream("echo", "a b", headers=key) as connection:
        events = await connection.rest()
    again = {**key, "Last-Event-ID": events[-1].at}
    async with await system.stream("echo", "a b", headers=again) as connection:
        frames = await connection.rest()
    assert [(f.id, f.event) for f in frames] == [(events[-1].at, "done")]


@pytest.mark.parametrize("path", ["/chat/stream/{}", "/chat/{}"])
@pytest.mark.parametrize("stream_id", ["nonsense", "ab" * 17, "AB" * 17, "%00", "a" * 5000])
async def test_an_unknown_stream_is_not_found(system: System, path: str, stream_id: str) -> None:

    async def settled() -> httpx2.Response | None:
        """Wait while the response is 503: a Redis that has just started may have lost any stream."""
        answer = await system.http.get(system.url + path.format(stream_id))
        return answer if answer.status_code != 503 else None

    answer = await system.eventually(settled, timeout_s=30)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "stream_not_found"


async def test_a_stream_past_its_retention_is_gone(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, retention_s=1.5)
    stream_id = await system.post("echo")

    async def gone() -> bool:
        answer = await system.http.get(f"{system.url}/chat/stream/{stream_id}")
        return bool(answer.status_code == 410 and answer.json()["error"]["code"] == "stream_gone")

    await system.eventually(gone)

    async def only_the_tombstone_is_left() -> bool:
        async with system.broker.client() as client:
            left = [key async for key in client.scan_iter(match=f"*{stream_id}*")]
        return {key.rsplit(b":", 1)[1] for key in left if b"arq" not in key} == {b"tombstone"}

    await system.eventually(only_the_tombstone_is_left)


async def test_a_post_with_a_cursor_and_no_known_key_never_generates(system: System) -> None:
    for headers in ({"Last-Event-ID": "3-4"}, {"Last-Event-ID": "3-4", "Idempotency-Key": "never-seen"}):
        async with await open_sse(
            "POST", f"{system.url}/chat/stream", headers=headers, json=ask("echo", "never generated")
        ) as connection:
            frames = await connection.rest()
        assert [(f.event, f.id) for f in frames] == [("error", None), ("done", None)]
        assert frames[0].data["code"] == "resume_without_key"
    assert "never generated" not in {call.prompt for call in system.fake.calls}


async def test_retention_counts_from_the_end_of_a_longer_answer(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, retention_s=2)
    words = [f"w{i} " for i in range(80)]
    system.fake.play("outlasts", Answer(deltas=words, delay_s=0.05))
    async with await system.stream("outlasts") as connection:
        frames = await connection.rest()
    assert text_of(frames) == "".join(words)
    assert not any(frame.data.get("reset") for frame in frames)


async def test_retention_counts_from_the_end_of_a_longer_wait(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, retention_s=2, queue_timeout_s=3)
    system.workers[0].stop()
    async with await system.stream("echo") as connection:
        frames = await connection.rest()
    assert frames[-2].data["code"] == "queue_timeout"
