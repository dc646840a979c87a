"""Restore."""

from shared.broker.client import Client, run_script
from shared.broker.removal import delete_stream
from shared.broker.replies import (
    Code,
    WriteReply,
)
from tests.scripts.stream import (
    DONE,
    IDEMPOTENCY,
    LATE_MS,
    LEASE_MS,
    NOBODY_WATCHES,
    READERS,
    SCRIPTS,
    TOKEN,
    TOMBSTONE,
    Stream,
    be_well,
    event,
    lives_as_one,
    now_ms,
    some,
)


async def test_restore_of_a_missing_stream(client: Client) -> None:
    stream = Stream(client)
    holder = stream.holder(7)
    reply = await stream.restore(holder, some(1, 9))
    state = await stream.state()
    log = [*await stream.stored_log(), *(stored for _, stored in await stream.tail())]
    size = 5120 + len(state["request"]) + sum(map(len, log))
    assert reply == WriteReply(Code.OK, 9, "", True, 7, size, int(state["expires"]))
    assert (state["status"], state["epoch"], state["log_epoch"], state["holder"]) == ("running", "7", "7", TOKEN)
    assert (state["principal"], state["attempt"], state["request"]) == ("p", "1", '{"messages":[]}')
    assert await stream.log() == some(1, 9)
    assert [at for at, _ in await stream.tail()] == [f"7-{seq}" for seq in range(5, 10)]  # there is room for another
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()
    assert await client.get(stream.keys[TOMBSTONE]) == b"live p"
    assert now_ms() + LEASE_MS - LATE_MS < (await stream.next_look() or 0) <= now_ms() + LEASE_MS + 1000
    await lives_as_one(stream)
    assert (await stream.append(holder, 10, some(10, 10), resend=True)).code is Code.OK
    assert (await stream.finish(holder, 11, [DONE])).code is Code.OK


async def test_restore_without_an_event_or_an_idempotency_key(client: Client) -> None:
    stream = Stream(client, key=False)
    holder = stream.holder(7)
    assert (await stream.restore(holder, [])).last_seq == 0
    assert await client.keys("*idem*") == []
    assert (await stream.append(holder, 1, some(1, 1))).code is Code.OK
    await lives_as_one_without_key(stream)


async def lives_as_one_without_key(stream: Stream) -> None:
    state, log, tail, *_ = await stream.lives()
    assert state == tail > now_ms()
    assert log == -2


async def test_restore_over_an_older_epoch(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    new = stream.holder(old.epoch + 5, "w2.x")
    assert (await stream.restore(new, some(1, 3, "new"))).code is Code.OK
    assert await stream.log() == some(1, 3, "new")
    assert [at for at, _ in await stream.tail()] == [f"{new.epoch}-{seq}" for seq in (1, 2, 3)]
    assert (await stream.append(old, 3, some(3, 3))).code is Code.SUPERSEDED
    await lives_as_one(stream)


async def test_restore_over_the_same_or_a_newer_epoch(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    await stream.append(new, 1, some(1, 2))
    before = await stream.everything()
    reply = await stream.restore(new, some(1, 5, "other"))
    assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert (await stream.restore(stream.holder(new.epoch, "w3.x"), some(1, 5))).code is Code.SUPERSEDED
    assert (await stream.restore(old, some(1, 5))).code is Code.SUPERSEDED
    assert await stream.everything() == before


async def test_restore_never_reopens_an_ended_stream(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.finish(holder, 1, [event(1), DONE])
    before = await stream.everything()
    for epoch in (holder.epoch - 1, holder.epoch, holder.epoch + 9):
        reply = await stream.restore(stream.holder(epoch), some(1, 5))
        assert (reply.code, reply.last_seq, reply.epoch) == (Code.CLOSED, 2, holder.epoch)
    assert await stream.everything() == before


async def test_restore_never_undoes_a_delete(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await delete_stream(client, SCRIPTS, stream.id)
    assert await stream.restore(holder, some(1, 5)) == WriteReply(Code.CLOSED, 0, "deleted", False, 0)
    assert not await client.exists(*stream.keys[:READERS])


async def test_a_restored_stream_waits_for_its_readers(client: Client) -> None:
    """The next reader leases report them; until then the stream is not abandoned."""
    stream = Stream(client)
    holder = stream.holder(7)
    assert (await stream.restore(holder, some(1, 2))).signal == ""
    await be_well(stream)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == ""
    assert (await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)).code is Code.WATCHED
