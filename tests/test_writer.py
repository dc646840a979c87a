"""The writer's rare moments, one call at a time: the real writer and the real scripts, no process around them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.broker.client import Client, connect, run_script
from shared.broker.creation import NewStream, create
from shared.broker.ending import Outcome, holder_of
from shared.broker.replies import Claimed, Code, LogPage, Refused, WriteReply
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.events import Usage
from shared.protocol.ids import START, new_stream_id
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker
from workers.jobs.cancel_scope import CancelScope, DeadlineExceeded, Interrupted
from workers.providers.base import TextDelta
from workers.writing import flusher as flusher_module
from workers.writing.flusher import Flusher
from workers.writing.phases import Ended, StopReason
from workers.writing.writer import StreamWriter

SETTINGS = Settings()
SCRIPTS = StreamScripts(SETTINGS)
TOKEN = "w1.token"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    broker = Broker(tmp_path)
    await broker.start()
    client = connect(broker.url)
    yield client
    await client.aclose()
    broker.kill()


async def claimed_writer(
    client: Client, on_disconnect: str = "continue", wake: Callable[[StreamWriter], None] = lambda writer: None
) -> StreamWriter:
    stream_id = new_stream_id()
    fields: dict[str, str | bytes | int] = {"principal": "p", "on_disconnect": on_disconnect, "grace_ms": 0}
    fields["body_hash"] = "00"
    await create(client, SCRIPTS, NewStream(stream_id, fields, "00", None, Demand("a", Limits(), 0)))
    claimed = await run_script(client, SCRIPTS.claim(stream_id, TOKEN))
    assert isinstance(claimed, Claimed)
    writer = StreamWriter(
        holder_of(stream_id, claimed, TOKEN),
        claimed,
        settings=SETTINGS,
        scripts=SCRIPTS,
        wake=wake,
        on_stop=lambda: None,
    )
    writer.draft.set_model("p", "m")
    return writer


async def step(client: Client, writer: StreamWriter) -> None:
    call = writer.next_call()
    assert call is not None
    writer.settle(await run_script(client, call))


async def set_fields(client: Client, key: str, **fields: str | int) -> None:
    await client.hset(key, mapping=fields)  # type: ignore[misc]


async def test_a_handover_while_an_append_is_in_flight(client: Client) -> None:
    """The append's answer is not taken for the release's."""
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    in_flight = writer.next_call()
    assert in_flight is not None
    handing_over = asyncio.create_task(writer.hand_over())
    await asyncio.sleep(0)
    writer.settle(await run_script(client, in_flight))
    assert not writer.is_settled
    assert isinstance(await run_script(client, SCRIPTS.claim(writer.holder.stream_id, "w2.x")), Refused)
    await step(client, writer)
    assert await handing_over is Ended.HANDED_OVER
    taken = await run_script(client, SCRIPTS.claim(writer.holder.stream_id, "w2.x"))
    assert isinstance(taken, Claimed)
    assert (taken.attempt, taken.readable) == (1, 2)


def reply_of(writer: StreamWriter, code: Code, *, last_seq: int = 0, signal: str = "") -> WriteReply:
    return WriteReply(code, last_seq, signal, True, writer.holder.epoch)


async def test_a_full_window_stops_appends_until_it_has_room(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    assert writer.next_call() is not None
    writer.settle(reply_of(writer, Code.FULL))
    await writer.push([TextDelta("y")])
    assert writer.next_call() is None
    writer.room()
    await step(client, writer)


async def test_a_full_window_does_not_stop_an_ending(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    assert writer.next_call() is not None
    writer.settle(reply_of(writer, Code.FULL))
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 1)))
    await asyncio.sleep(0)
    await step(client, writer)
    assert await ending is Ended.WRITTEN


async def test_a_provider_that_breaks_off_during_an_ending_adds_nothing_behind_it(client: Client) -> None:
    """The stream ends as abandoned; output and the end of its call come before the reply."""
    writer = await claimed_writer(client, "cancel")
    writer.draft.begin_call("p", "m")
    await writer.push([TextDelta("x")])
    await step(client, writer)
    writer.settle_renewal(reply_of(writer, Code.OK, last_seq=2, signal="abandoned"))
    await writer.push([TextDelta("y")])
    writer.draft.end_call("broken_off")
    assert [type(events.decode(each)) for each in writer.draft.events.unsent] == [events.Done]
    writer.settle(reply_of(writer, Code.WATCHED))
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 2)))
    await asyncio.sleep(0)
    await step(client, writer)
    assert await ending is Ended.WRITTEN
    written = [type(each) for each in await log_of(client, writer)]
    assert written == [events.Start, events.Token, events.Token, events.Done]


async def test_a_restore_comes_before_an_ending(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    await step(client, writer)
    await client.flushall()
    writer.settle_renewal(await run_script(client, SCRIPTS.renew(writer.holder)))
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 1)))
    await asyncio.sleep(0)
    call = writer.next_call()
    assert call is not None
    assert call.script.name == "restore"
    writer.settle(await run_script(client, call))
    await step(client, writer)
    assert await ending is Ended.WRITTEN


async def test_a_handover_goes_on_when_an_abandoned_stream_has_a_reader_again(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    await step(client, writer)
    writer.settle_renewal(reply_of(writer, Code.OK, last_seq=2, signal="abandoned"))
    handing_over = asyncio.create_task(writer.hand_over())
    await asyncio.sleep(0)
    assert writer.next_call() is not None
    writer.settle(reply_of(writer, Code.WATCHED, last_seq=2))
    await asyncio.sleep(0)
    await step(client, writer)
    assert await handing_over is Ended.HANDED_OVER


async def log_of(client: Client, writer: StreamWriter) -> list[events.Event]:
    page = await run_script(client, SCRIPTS.read(writer.holder.stream_id, START))
    assert isinstance(page, LogPage)
    assert page.complete
    return [events.decode(stored) for stored in page.events]


async def test_a_withdrawn_ending_leaves_no_trace_in_the_log(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    writer.settle_renewal(reply_of(writer, Code.OK, signal="abandoned"))
    assert writer.next_call() is not None
    writer.settle(reply_of(writer, Code.WATCHED))
    await writer.push([TextDelta("y"), TextDelta("z")])
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 3)))
    await asyncio.sleep(0)
    await step(client, writer)
    assert await ending is Ended.WRITTEN
    kinds = [event.TYPE for event in await log_of(client, writer)]
    assert kinds == [b"start", b"token", b"token", b"done"]


async def test_an_ending_is_said_again_and_then_let_go(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 1)))
    await asyncio.sleep(0)
    await step(client, writer)
    assert await ending is Ended.WRITTEN
    before = await log_of(client, writer)
    await client.flushall()
    assert writer.check(await run_script(client, SCRIPTS.renew(writer.holder)))
    assert not writer.is_settled
    await step(client, writer)  # restores
    await step(client, writer)  # ends
    assert writer.is_written
    assert await log_of(client, writer) == before


async def test_an_ending_that_was_deleted_meanwhile_is_let_go(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    ending = asyncio.create_task(writer.finish(Outcome("stop"), Usage(1, 1)))
    await asyncio.sleep(0)
    await step(client, writer)
    await ending
    lost = await run_script(client, SCRIPTS.renew(writer.holder))
    await client.delete(writer.holder.keys[0])
    missing = await run_script(client, SCRIPTS.renew(writer.holder))
    assert lost.code == "CLOSED"
    assert writer.check(missing)
    await client.set(writer.holder.keys[5], "deleted p", px=10_000)
    await step(client, writer)
    assert writer.is_settled  # nothing keeps it in memory
    assert not writer.is_written
    assert not await client.exists(writer.holder.keys[0])


async def test_an_abandoned_stream_stops_with_that_reason(client: Client) -> None:
    writer = await claimed_writer(client, on_disconnect="cancel")
    await writer.push([TextDelta("x")])
    await step(client, writer)
    await set_fields(client, writer.holder.keys[0], live_until=0, polled_until=0, created=0)
    await set_fields(client, writer.holder.keys[6], at=10**15)
    writer.settle_renewal(await run_script(client, SCRIPTS.renew(writer.holder)))
    assert not writer.stop_reason  # the finish script decides
    await step(client, writer)
    assert writer.is_written
    assert writer.stop_reason == "abandoned"
    assert await writer.finish(Outcome.cancelled(StopReason.ABANDONED), None) is Ended.WRITTEN


async def test_a_stream_that_another_worker_took_is_lost(client: Client) -> None:
    writer = await claimed_writer(client)
    await set_fields(client, writer.holder.keys[0], holder="w2.x")
    writer.settle_renewal(await run_script(client, SCRIPTS.renew(writer.holder)))
    assert writer.stop_reason is StopReason.LOST
    assert await writer.finish(Outcome.cancelled(StopReason.LOST), None) is Ended.LOST


def test_a_reason_of_a_newer_gateway_cancels() -> None:
    assert StopReason("something new") is StopReason.CANCELLED


async def test_an_interruption_after_the_deadline_does_nothing() -> None:
    scope = CancelScope(0)

    async def closes_slowly() -> None:
        async with scope:
            try:
                await asyncio.sleep(60)
            finally:
                scope.interrupt()

    with pytest.raises(DeadlineExceeded):
        await closes_slowly()
    scope.interrupt()


async def test_an_interruption_is_no_deadline() -> None:
    scope = CancelScope(60)
    asyncio.get_running_loop().call_soon(scope.interrupt)
    with pytest.raises(Interrupted):
        async with scope:
            await asyncio.sleep(60)


async def test_a_timeout_within_a_scope_is_not_its_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with CancelScope(60):
            raise TimeoutError


async def test_a_handover_whose_reply_was_lost_leaves_the_stream_to_others(client: Client) -> None:
    """The worker must not stop the stored answer that the next one resumes."""
    writer = await claimed_writer(client)
    await writer.push([TextDelta("x")])
    await step(client, writer)
    handing_over = asyncio.create_task(writer.hand_over())
    await asyncio.sleep(0)
    release = writer.next_call()
    assert release is not None
    await run_script(client, release)
    writer.settle(BrokerUnavailable())
    await step(client, writer)
    assert await handing_over is Ended.LOST
    assert writer.is_superseded


async def test_a_stream_that_redis_refuses_does_not_hold_up_the_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "_FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(flusher_module, "_LONGEST_PAUSE_S", 60.0)
    flusher = Flusher(client.servers, lambda: 0.0)
    broken, sound = [await claimed_writer(client, wake=flusher.wake) for _ in range(2)]
    await client.set(broken.holder.keys[0], "no hash")
    sending = asyncio.create_task(flusher.run())
    try:
        async with asyncio.timeout(50):
            for length in (2, 3, 4):  # the first append writes `start` too
                broken.draft.add([TextDelta("x")])
                sound.draft.add([TextDelta("x")])
                while await client.xlen(sound.holder.keys[2]) < length:
                    await asyncio.sleep(0.01)
    finally:
        sending.cancel()
