"""Timelines, counts and the overview for operators."""

import pytest

from shared.broker.circuit_breaker import count_failure
from shared.broker.client import Client, run_script
from shared.broker.overview import MOST_LIVE, read_overview
from shared.broker.removal import delete_stream
from shared.broker.replies import (
    Code,
)
from shared.broker.scripts import Ending
from shared.broker.timeline import read_timeline
from shared.protocol.lifecycle import Status
from tests.scripts.stream import (
    DONE,
    ENDING,
    ON_CLUSTER,
    ROUTE,
    SCRIPTS,
    Stream,
    some,
)


async def told(stream: Stream) -> list[tuple[str, str, int]]:
    (known,) = await read_timeline(stream.client, [stream.id])
    times = [each.at_ms for each in known.timeline()]
    assert times == sorted(times)
    return [(each.what, each.detail, each.attempt) for each in known.timeline()]


async def test_the_history_of_a_stream(client: Client) -> None:
    """Through a lost worker, a drain and a cancel; only the first append of an attempt is a first token."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 1))
    await stream.append(holder, 2, some(2, 3))
    holder = await stream.take_over()
    await stream.append(holder, 1, some(1, 1))
    assert (await run_script(client, SCRIPTS.release(holder))).code is Code.OK
    holder = await stream.claim(f"w3{ROUTE}.token")
    for _ in range(2):
        await run_script(client, SCRIPTS.cancel(stream.id, "cancelled"))
    ending = Ending(Status.CANCELLED, {"finish_reason": "cancelled", "reason": "cancelled"}, 0)
    await stream.finish(holder, 1, [DONE], ending)
    assert await told(stream) == [
        ("created", "", 0),
        ("claimed", "w1", 1),
        ("first_token", "", 1),
        ("taken_over", "w2", 2),
        ("first_token", "", 2),
        ("handed_over", "", 2),
        ("taken_over", "w3", 2),
        ("cancel_asked", "cancelled", 2),
        ("ended", "cancelled: cancelled", 2),
    ]


async def test_the_size_of_a_history_is_limited(client: Client) -> None:
    stream = await Stream(client).create()
    for _ in range(100):
        await stream.take_over()
    assert 1000 < len((await stream.state())["history"]) < 2100
    assert (await stream.state())["attempt"] == "100"


async def test_resumes_are_counted_and_the_first_are_in_the_history(client: Client) -> None:
    stream = Stream(client)
    assert await run_script(client, SCRIPTS.note_resume(stream.id, "reset")) == ""
    assert await client.dbsize() == 0
    await stream.create(traceparent="00-ab-cd-01")
    for _ in range(30):
        assert await run_script(client, SCRIPTS.note_resume(stream.id, "reset")) == "00-ab-cd-01"
    assert (await stream.state())["resumes"] == "30"
    assert (await told(stream)).count(("resumed", "reset", 0)) == 20


async def test_endings_are_counted_and_the_last_are_listed(client: Client) -> None:
    """A deleted stream leaves the lists and stays in the counts."""
    failure = Ending(Status.FAILED, {"finish_reason": "error", "reason": "provider_auth"}, 3)
    streams = [await Stream(client, key=False).create() for _ in range(3)]
    for stream, ending in zip(streams, (ENDING, failure, failure), strict=True):
        await stream.finish(await stream.claim(), 1, [DONE], ending)
    assert await delete_stream(client, SCRIPTS, streams[2].id)
    seen = await read_overview(client)
    assert {each.stream_id for each in seen.ended} == {stream.id for stream in streams[:2]}
    assert [each.stream_id for each in seen.failed] == [streams[1].id]
    counted: dict[str, int] = {}
    for _, counts in seen.minutes:
        for name, n in counts.items():
            counted[name] = counted.get(name, 0) + n
    assert counted == {"completed": 1, "failed": 2, "failed:provider_auth": 2, "tokens": 6}
    assert (seen.live, seen.waiting, seen.streams) == (0, 0, [])


async def test_open_breakers_are_listed(client: Client) -> None:
    for target in ("openai/a", "openai/b"):
        await count_failure(client, target, limit=1 if target == "openai/b" else 2, open_s=60)
    assert (await read_overview(client)).open_breakers == ["openai/b"]


@pytest.mark.skipif(ON_CLUSTER, reason="there all streams of these tests are in one bucket")
async def test_the_oldest_waiting_streams_are_listed(client: Client) -> None:
    streams = [await Stream(client, key=False).create() for _ in range(150)]
    oldest, seen = streams[3:8], await read_overview(client)
    for stream in streams[:3]:  # taken: they wait no more
        await stream.claim()
    waiting = await read_overview(client)
    assert (seen.live, seen.waiting, len(seen.streams)) == (150, 150, MOST_LIVE)
    assert (waiting.live, waiting.waiting) == (150, 147)
    assert {stream.id for stream in oldest} <= {each.stream_id for each in waiting.streams}
