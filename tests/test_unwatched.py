"""An answer without readers ends after its grace period, or runs to the end if the request says so."""

import asyncio

from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Call
from tests.sse_client import text_of
from tests.system import System

WORDS = [f"w{i} " for i in range(60)]


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


async def test_a_stream_is_abandoned_after_its_grace_period(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("abandoned", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("abandoned", grace_s=0.3) as connection:
        await connection.until_text("".join(WORDS[:5]))
    await system.ended_unwatched(connection.stream_id)
    status = await system.status(connection.stream_id)
    assert (status["status"], status["finish_reason"], status["reason"]) == ("cancelled", "cancelled", "abandoned")
    assert status["text"] == "".join(WORDS[:5])  # the partial answer is kept
    call = last_call(system, "abandoned")
    await call.wait_closed()
    assert call.closed_by_client

    async def is_logged() -> bool:
        """The worker's log has the same reason."""
        lines = [line for worker in system.workers for line in worker.log.read_text().splitlines()]
        (ended,) = [line for line in lines if connection.stream_id in line and "stream ended" in line] or [""]
        return '"reason":"abandoned"' in ended

    await system.eventually(is_logged)


async def test_a_client_that_returns_within_the_grace_period_continues(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("comes-back", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("comes-back", grace_s=4) as connection:
        seen = [await connection.next("token")]
    for _ in range(3):  # longer in total than the grace period, but never at once
        async with await system.read(connection.stream_id, seen[-1].id, gateway=1):
            await asyncio.sleep(1.5)
    gate.set()
    async with await system.read(connection.stream_id, gateway=1) as again:
        assert text_of(await again.rest()) == "".join(WORDS)


async def test_a_second_viewer_keeps_a_stream_alive(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("kept-alive", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("kept-alive", grace_s=0) as first:
        await first.next("token")
        second = await system.read(first.stream_id, gateway=1)
        await second.next("token")
    # The first reader has left; every lease renewal sees the second.
    metrics = f"{system.gateways[0].url}/metrics"

    async def first_is_gone() -> bool:
        return "headrace_subscriptions 0.0" in (await system.http.get(metrics)).text

    await system.eventually(first_is_gone)
    gate.set()
    frames = await second.rest()
    assert frames[-1].data["finish_reason"] == "stop"


async def test_an_unwatched_stream_stops_at_the_window_and_resumes_with_its_reader(start_system: StartSystem) -> None:
    """The stream runs until the window is full, waits for its reader, and then runs to the end."""
    system = await start_system(gateways=1, workers=1, window=16, cap=64, max_stream_bytes=2**25)
    words = [f"{i:04}" + "x" * 2044 for i in range(6000)]
    system.fake.play("held-unwatched", Answer(deltas=words))
    async with await system.stream("held-unwatched", grace_s=600) as connection:
        first = await connection.next("token")
    call = last_call(system, "held-unwatched")
    await call.wait_stalled(1.0, timeout_s=30)
    assert not call.finished
    async with await system.read(connection.stream_id, first.id) as again:
        frames = await again.rest()
    assert text_of([first, *frames]) == "".join(words)


async def test_on_disconnect_continue_runs_to_the_end_unwatched(system: System) -> None:
    words = [f"w{i} " for i in range(700)]  # more events than the window
    system.fake.play("continues", Answer(deltas=words, delay_s=0.001))
    stream_id = await system.post("continues")
    await system.ended_unwatched(stream_id)
    assert (await system.status(stream_id))["text"] == "".join(words)


async def test_polling_the_status_counts_as_watching(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("polled", Answer(deltas=WORDS, delay_s=0.002, gate=gate, gate_after=5))
    stream_id = await system.post("polled", on_disconnect="cancel", grace_s=0)
    # One second in total: without the polls the stream would be abandoned at once.
    for _ in range(10):
        status = await system.status(stream_id)
        assert status["status"] in {"queued", "running"}
        await asyncio.sleep(0.1)
    gate.set()
    assert (await system.ended(stream_id))["text"] == "".join(WORDS)


async def test_polling_does_not_keep_an_answer_alive_that_its_reader_has_left(system: System) -> None:
    """A page that shows the status must not make an abandoned answer go on, and cost, for ever."""
    gate = asyncio.Event()
    system.fake.play("status-page", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("status-page", grace_s=0.3) as connection:
        await connection.until_text("".join(WORDS[:5]))
    status = await system.ended(connection.stream_id)  # polls at short intervals
    assert (status["status"], status["reason"]) == ("cancelled", "abandoned")
    assert status["text"] == "".join(WORDS[:5])
