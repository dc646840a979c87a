"""Append: its replies in their order, and the window."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.removal import delete_stream
from shared.broker.replies import (
    Code,
    WriteReply,
)
from shared.broker.scripts import Ending
from shared.protocol import chunks as chunks_module
from shared.protocol.ids import START, EventId
from shared.protocol.lifecycle import Status
from tests.scripts.stream import (
    CAP,
    DONE,
    READERS,
    SCRIPTS,
    STATE,
    TOKEN,
    WINDOW,
    Stream,
    event,
    heard,
    some,
)


# --- append: the answers, in their order
async def test_append_to_a_missing_stream(client: Client) -> None:
    stream = Stream(client)
    assert await stream.append(stream.holder(1), 1, some(1, 1)) == WriteReply(Code.MISSING, 0, "", False, 0)
    assert await client.dbsize() == 0


async def test_append_to_an_ended_stream(client: Client) -> None:
    """Every caller gets the same reply, so a worker recognises its own ending if the first reply was lost."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    ending = Ending(Status.CANCELLED, {"finish_reason": "cancelled", "reason": "cancelled"}, 0)
    await stream.finish(holder, 3, [DONE], ending)
    before = await stream.everything()
    closed = WriteReply(Code.CLOSED, 3, "cancelled", False, holder.epoch)
    for epoch, token, first in [
        (holder.epoch, TOKEN, 3),
        (holder.epoch, "w2.x", 99),
        (holder.epoch - 1, TOKEN, 1),
        (holder.epoch + 1, TOKEN, 1),
    ]:
        assert await stream.append(stream.holder(epoch, token), first, [DONE]) == closed
    assert await stream.finish(holder, 3, [DONE]) == closed
    assert await run_script(client, SCRIPTS.renew(holder)) == closed
    assert await stream.everything() == before


async def test_append_to_a_deleted_stream(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await delete_stream(client, SCRIPTS, stream.id)
    assert await stream.append(holder, 1, some(1, 1)) == WriteReply(Code.CLOSED, 0, "deleted", False, 0)
    assert not await client.exists(*stream.keys[:READERS])


async def test_append_by_a_superseded_holder(client: Client) -> None:
    """A higher epoch, or another holder of the same epoch, is checked before gaps."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2))
    new = await stream.take_over()
    before = await stream.everything()
    for holder in (old, stream.holder(new.epoch, TOKEN), stream.holder(old.epoch, new.token)):
        for first in (1, 3, 99):
            reply = await stream.append(holder, first, some(1, 1))
            assert (reply.code, reply.epoch) == (Code.SUPERSEDED, new.epoch)
    assert await stream.everything() == before


async def test_append_when_redis_is_behind(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    before = await stream.everything()
    for token in (TOKEN, "w2.x"):
        reply = await stream.append(stream.holder(holder.epoch + 1, token), 99, some(1, 1))
        assert (reply.code, reply.epoch) == (Code.BEHIND, holder.epoch)
    assert await stream.everything() == before


async def test_append_over_a_gap(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert (await stream.append(holder, 2, some(2, 2))).last_seq == 0
    await stream.append(holder, 1, some(1, 2))
    before = await stream.everything()
    for first in (4, 9):
        reply = await stream.append(holder, first, some(first, first))
        assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert await stream.everything() == before


async def test_append(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert await stream.append(holder, 1, some(1, 2)) == WriteReply(Code.OK, 2, "", False, holder.epoch)
    assert await stream.append(holder, 3, some(3, 3)) == WriteReply(Code.OK, 3, "", False, holder.epoch)
    assert await stream.log() == some(1, 3)
    assert await stream.tail() == [(f"{holder.epoch}-{seq}", event(seq)) for seq in (1, 2, 3)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 3), (2, 3), (1, 5), (3, 5), (4, 5)])
async def test_logged_events_are_skipped_by_append(client: Client, first: int, last: int) -> None:
    """The first word stands: an event once sent is frozen."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    reply = await stream.append(holder, first, some(first, last, "again"), resend=True)
    assert (reply.code, reply.last_seq) == (Code.OK, max(3, last))
    stored = some(1, 3) + some(4, last, "again")
    assert await stream.log() == stored
    assert await stream.tail() == [(f"{holder.epoch}-{i + 1}", stored[i]) for i in range(len(stored))]


async def test_the_tail_is_capped_and_the_log_is_not(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    await stream.append(holder, 4, some(4, 25))
    await stream.acknowledge(EventId(holder.epoch, 25))
    for seq in range(26, 60):
        await stream.append(holder, seq, some(seq, seq))
        await stream.acknowledge(EventId(holder.epoch, seq))
        kept = [at for at, _ in await stream.tail()]
        assert CAP - 1 <= len(kept) <= CAP
        assert kept == [f"{holder.epoch}-{n}" for n in range(seq + 1 - len(kept), seq + 1)]
    assert await stream.log() == some(1, 59)


async def test_the_tail_is_added_to_only_above_its_top(client: Client) -> None:
    """A script does not stop half-way if the tail has outlived the rest."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 4))
    await client.delete(stream.keys[STATE])
    assert (await stream.restore(holder, some(1, 2))).code is Code.OK
    assert await stream.log() == some(1, 2)
    assert (await stream.append(holder, 3, some(3, 5), resend=True)).code is Code.OK
    assert await stream.log() == some(1, 5)
    assert [at for at, _ in await stream.tail()] == [f"{holder.epoch}-{seq}" for seq in range(1, 6)]


async def test_more_chunks_than_lua_can_unpack(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 1)
    stream = await Stream(client).create()
    holder = await stream.claim()
    await client.flushall()
    assert (await stream.restore(holder, some(1, 9001))).last_seq == 9001
    assert await stream.log() == some(1, 9001)
    assert (await stream.finish(holder, 9002, [*some(9002, 18_100), DONE])).last_seq == 18_101
    assert await stream.log() == [*some(1, 18_100), DONE]


async def test_every_reply_carries_cancel_and_watched(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert not (await stream.append(holder, 1, some(1, 1))).watched
    await stream.acknowledge()
    assert (await run_script(client, SCRIPTS.renew(holder))).watched
    await run_script(client, SCRIPTS.cancel(stream.id, "cancelled"))
    for reply in (await stream.append(holder, 2, some(2, 2)), await run_script(client, SCRIPTS.renew(holder))):
        assert (reply.code, reply.signal, reply.watched) == (Code.OK, "cancelled", True)


# --- window
@pytest.mark.parametrize(
    ("on_disconnect", "who", "taken"),
    [
        ("cancel", "nobody", WINDOW),
        ("cancel", "live", WINDOW),
        ("cancel", "polled", WINDOW),
        ("continue", "nobody", WINDOW + 3),
        ("continue", "live", WINDOW),
        ("continue", "polled", WINDOW + 3),
    ],
)
async def test_streams_that_the_window_holds(client: Client, on_disconnect: str, who: str, taken: int) -> None:
    stream = await Stream(client).create(on_disconnect=on_disconnect, grace_ms=60_000)
    holder = await stream.claim()
    if who != "nobody":
        await stream.acknowledge(gateway="g1" if who == "live" else "")
    reply = await stream.append(holder, 1, some(1, WINDOW + 3))
    assert (reply.code, reply.last_seq) == (Code.OK if taken > WINDOW else Code.FULL, taken)
    assert await stream.log() == some(1, taken)


async def test_the_window_holds_event_by_event_too(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    await stream.acknowledge()
    codes = [(await stream.append(holder, seq, [event(seq)])).code for seq in range(1, WINDOW + 2)]
    assert codes == [Code.OK] * WINDOW + [Code.FULL]
    await stream.acknowledge(EventId(holder.epoch, 1))
    assert (await stream.append(holder, WINDOW + 1, [event(WINDOW + 1)])).code is Code.OK
    assert await stream.log() == some(1, WINDOW + 1)


async def test_the_log_of_another_epoch_is_not_continued(client: Client) -> None:
    """A Redis set back to before an epoch's first append: the log is the epoch before's, and as long."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    await stream.acknowledge()
    new = await stream.take_over()
    assert await stream.append(new, 3, some(3, 3)) == WriteReply(Code.GAP, 0, "", True, new.epoch)
    assert await stream.log() == some(1, 2, "old")


async def test_room_is_notified_to_the_holder(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    assert (await stream.append(holder, 1, some(1, 9))).code is Code.FULL
    assert (await stream.append(holder, 5, some(5, 9))) == WriteReply(Code.FULL, 4, "", True, holder.epoch)
    async with heard(client, "w1") as words:
        await stream.acknowledge(START)  # no room yet
        await stream.acknowledge(EventId(holder.epoch - 1, 4))  # another epoch's
        assert words == []
        await stream.acknowledge(EventId(holder.epoch, 2))
        await stream.acknowledge(EventId(holder.epoch, 3))  # notified already
    assert words == [f"room {stream.id}"]
    assert (await stream.append(holder, 5, some(5, 9))).last_seq == 3 + WINDOW
    assert (await stream.append(holder, 8, some(8, 9))).code is Code.FULL


async def test_the_lead_never_falls_and_is_of_the_readable_epoch(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 4))
    for epoch, seq in ((holder.epoch, 3), (holder.epoch, 1), (holder.epoch + 1, 4), (0, 0)):
        await stream.acknowledge(EventId(epoch, seq))
    assert (await stream.state())["lead"] == "3"
    await stream.acknowledge(EventId(holder.epoch, 999))  # a cursor beyond the log
    assert (await stream.state())["lead"] == "4"
    new = await stream.take_over()
    reply = await stream.append(new, 1, some(1, 9))
    assert (reply.code, reply.last_seq) == (Code.FULL, WINDOW)


async def test_a_resend_and_the_ending_ignore_the_window(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    assert (await stream.append(holder, 1, some(1, 9), resend=True)).code is Code.OK
    assert (await stream.finish(holder, 10, [*some(10, 30), DONE])).code is Code.OK
    assert await stream.log() == [*some(1, 30), DONE]


async def test_the_last_reader_leaving_makes_room(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="continue")
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 9))
    async with heard(client, "w1") as words:
        await run_script(client, SCRIPTS.leave(stream.id, "g1", START))
    assert words == [f"room {stream.id}"]
    assert (await stream.append(holder, 5, some(5, 9))).code is Code.OK
