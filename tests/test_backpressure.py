"""A slow reader slows down the provider, affects no other reader, and loses nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Call
from tests.sse_client import Broken, Frame, SseConnection, text_of
from tests.system import System

PIECE = "0123456789" * 300
PIECES = 5000  # 15 MB: kernel buffers on the way swallow megabytes
SMALL_BUFFER = 16 * 1024
MEGABYTE = 1024 * 1024


def many(number: int) -> Iterator[str]:
    return (f"[{number}:{i}]{PIECE}" for i in range(PIECES))


def expected(call: Call) -> str:
    return "".join(many(call.number))


async def tail_length(system: System, stream_id: str) -> int:
    async with system.broker.client() as client:
        key = [key async for key in client.scan_iter(match=f"*{stream_id}:tail")]
        return int(await client.xlen(key[0])) if key else 0


async def read_all(connection: SseConnection) -> list[Frame]:
    """Read a long answer without a second copy of its bytes."""
    return await connection.rest()


async def test_a_slow_reader_slows_the_provider_and_loses_nothing(start_system: StartSystem) -> None:
    system = await start_system(
        max_stream_bytes=64 * MEGABYTE, write_deadline_s=600, cap=256, window=128, retention_s=600
    )
    system.fake.play("long", Answer(deltas=many))
    stream_id = await system.post("long", on_disconnect="cancel")
    slow = await system.read(stream_id, gateway=1, receive_buffer=SMALL_BUFFER)
    seen = await slow.take(2)
    call = (await system.fake.wait_calls(1))[0]
    before = [process.rss_bytes for process in (*system.gateways, *system.workers)]

    await call.wait_stalled(1.5, timeout_s=60)
    assert not call.finished
    held_at = call.sent_bytes
    assert held_at < 12 * MEGABYTE
    assert await tail_length(system, stream_id) <= 256
    after = [process.rss_bytes for process in (*system.gateways, *system.workers)]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 24 * MEGABYTE

    # A fast viewer of the same stream is not slowed: it gets all of it while the slow one reads nothing.
    async with await system.read(stream_id, gateway=0) as fast:
        assert text_of(await read_all(fast)) == expected(call)
    assert call.finished
    assert call.sent_bytes > held_at
    assert await tail_length(system, stream_id) <= 256

    assert text_of(seen + await read_all(slow)) == expected(call)


async def test_a_reader_that_reads_nothing_is_cut_and_can_resume(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, max_stream_bytes=64 * MEGABYTE, write_deadline_s=1)
    system.fake.play("cut", Answer(deltas=many))
    dead = await system.stream("cut", grace_s=600)
    async with await system.read(dead.stream_id, receive_buffer=SMALL_BUFFER) as reader:
        seen = await reader.take(1)
        dead.cut()

        async def nobody_reads() -> bool:
            metrics = (await system.http.get(f"{system.url}/metrics")).text
            return "headrace_subscriptions 0.0" in metrics

        await system.eventually(nobody_reads)
        try:
            seen += await reader.rest()  # data on its way
        except (Broken, OSError):
            pass
        else:
            raise AssertionError("the connection should have been cut, not ended")
    whole_events = [frame for frame in seen if frame.id]
    while whole_events[-1].event != "done":
        async with await system.read(dead.stream_id, whole_events[-1].id) as again:
            with suppress(Broken, OSError):  # cut as well, if this process does not read for a second
                async for frame in again.frames():
                    whole_events += [frame] if frame.id else []
    call = system.fake.calls[0]
    assert text_of(whole_events) == expected(call)
    assert len(system.fake.calls) == 1


async def test_a_late_joiner_reads_events_far_beyond_the_cap(start_system: StartSystem) -> None:
    system = await start_system(cap=32, window=16, max_event_bytes=256)
    words = [f"w{i} {'x' * 200} " for i in range(1500)]  # each an event of its own, however slow the worker is
    system.fake.play("beyond", Answer(deltas=words, delay_s=0.001))
    stream_id = await system.post("beyond")  # on_disconnect is "continue": no window without readers
    call = (await system.fake.wait_calls(1))[0]
    await call.wait_deltas(1000)
    async with await system.read(stream_id, gateway=1) as late:
        frames = await late.rest()
    assert text_of(frames) == "".join(words)
    assert len({frame.id for frame in frames}) == len(frames) > 3 * 32
    assert await tail_length(system, stream_id) <= 32
    async with await system.read(stream_id) as later:
        assert [f.id for f in await later.rest()] == [f.id for f in frames]


async def test_sixty_viewers_of_one_stream_get_the_same_text(system: System) -> None:
    words = [f"w{i} " for i in range(200)]
    gate = asyncio.Event()
    system.fake.play("many-viewers", Answer(deltas=words, delay_s=0.002, gate=gate, gate_after=5))
    stream_id = await system.post("many-viewers")
    viewers = [await system.read(stream_id, gateway=i % 2) for i in range(60)]
    gate.set()
    for frames in await asyncio.gather(*(viewer.rest() for viewer in viewers)):
        assert text_of(frames) == "".join(words)


async def test_a_cursor_beyond_the_log_opens_no_window(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, window=16, cap=64, max_stream_bytes=2**25)
    system.fake.play("lied-to", Answer(deltas=[f"{i:04}" + "x" * 2044 for i in range(6000)]))
    async with await system.stream("lied-to", grace_s=600) as connection:
        epoch = (await connection.next("token")).at.split("-")[0]
        liar = await system.read(connection.stream_id, f"{epoch}-999999999999999")
        call = system.fake.calls[0]
        await call.wait_stalled(1.5, timeout_s=60)
        assert not call.finished
        liar.cut()
