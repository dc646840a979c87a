"""Watched and abandoned streams, and finish."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.replies import (
    Code,
)
from shared.protocol.ids import START
from tests.scripts.stream import (
    DONE,
    LATE_MS,
    NOBODY_WATCHES,
    SCRIPTS,
    Stream,
    be_well,
    event,
    lives_as_one,
    now_ms,
    some,
)


# --- watched streams
async def test_watched_streams(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.acknowledge(gateway="g1")
    await stream.acknowledge(gateway="g2")
    await run_script(client, SCRIPTS.leave(stream.id, "g1", START))
    assert (await run_script(client, SCRIPTS.renew(holder))).watched
    await run_script(client, SCRIPTS.leave(stream.id, "g2", START))
    assert not (await run_script(client, SCRIPTS.renew(holder))).watched
    await stream.acknowledge(gateway="")
    assert not (await run_script(client, SCRIPTS.renew(holder))).watched, "a reader had it, and has left"


async def test_a_poll_watches_a_stream_that_was_never_streamed(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="continue")
    holder = await stream.claim()
    assert not (await run_script(client, SCRIPTS.renew(holder))).watched
    await stream.acknowledge(gateway="")
    assert (await run_script(client, SCRIPTS.renew(holder))).watched


@pytest.mark.parametrize(
    ("on_disconnect", "grace_ms", "pulse", "signal"),
    [
        ("cancel", 0, {}, "abandoned"),
        ("cancel", 60_000, {}, ""),
        ("continue", 0, {}, ""),
        ("cancel", 0, {"trouble": now_ms()}, ""),  # every gateway gets time to report its readers
    ],
)
async def test_abandoned_streams(
    client: Client, on_disconnect: str, grace_ms: int, pulse: dict[str, int], signal: str
) -> None:
    stream = await Stream(client).create(on_disconnect=on_disconnect, grace_ms=grace_ms)
    holder = await stream.claim()
    await be_well(stream, **({"trouble": now_ms() + 60_000} if pulse else {}))
    assert (
        await run_script(client, SCRIPTS.renew(holder))
    ).signal == ""  # the client of the request counts as a reader at first
    await stream.set(live_until=0, created=now_ms() - 1000)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == signal
    await stream.acknowledge()
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == ""


# --- finish
async def test_finish(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 2))
    reply = await stream.finish(holder, 3, [event(3), DONE])
    assert (reply.code, reply.last_seq, reply.epoch) == (Code.OK, 4, holder.epoch)
    state = await stream.state()
    assert (state["status"], state["finish_reason"], state["reason"]) == ("completed", "stop", "")
    assert now_ms() - LATE_MS < int(state["ended"]) <= now_ms() + 1000
    assert not {"request", "holder", "lease_until", "full"} & set(state)
    assert await stream.log() == [*some(1, 3), DONE]
    assert (await stream.tail())[-1] == (f"{holder.epoch}-4", DONE)
    assert await stream.next_look() is None
    await lives_as_one(stream, ended=True)


async def test_finish_fills_no_gap(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    before = await stream.everything()
    reply = await stream.finish(holder, 4, [DONE])
    assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert await stream.everything() == before


async def test_logged_events_are_skipped_by_finish(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    assert (await stream.finish(holder, 2, [*some(2, 3), DONE])).last_seq == 4
    assert await stream.log() == [*some(1, 3), DONE]
    assert [stored for _, stored in await stream.tail()] == [*some(1, 3), DONE]


async def test_finish_by_a_superseded_holder_or_ahead_of_redis(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    before = await stream.everything()
    assert (await stream.finish(old, 1, [DONE])).code is Code.SUPERSEDED
    assert (await stream.finish(stream.holder(new.epoch), 1, [DONE])).code is Code.SUPERSEDED
    assert (await stream.finish(stream.holder(new.epoch + 1), 1, [DONE])).code is Code.BEHIND
    assert await stream.everything() == before
    assert (await Stream(client).finish(Stream(client).holder(1), 1, [DONE])).code is Code.MISSING


async def test_a_reader_that_just_came_is_not_cut_off(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel")
    holder = await stream.claim()
    await be_well(stream)
    await stream.append(holder, 1, some(1, 2))
    await stream.acknowledge()
    before = await stream.everything()
    reply = await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)
    assert (reply.code, reply.last_seq, reply.watched) == (Code.WATCHED, 2, True)
    assert await stream.everything() == before
    await stream.set(live_until=0, created=now_ms() - 1000)
    assert (await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)).code is Code.OK
    assert (await stream.state())["status"] == "cancelled"
