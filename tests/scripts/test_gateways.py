"""Scripts of the gateways: create, cancel, delete, acknowledge, read."""

from shared.broker.client import Client, run_script
from shared.broker.creation import create
from shared.broker.desk_replies import Created
from shared.broker.keys import idempotency_entry_key, stream_keys
from shared.broker.removal import delete_stream, undo_stream
from shared.broker.replies import Claimed, Gone, Known, LogPage, LogPosition, Lost, Refused
from shared.protocol.ids import START, EventId
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE
from tests.scripts.stream import (
    DIGEST,
    DONE,
    IDEMPOTENCY,
    INDEX,
    LEASE_MS,
    READERS,
    RETENTION_MS,
    SCRIPTS,
    STATE,
    TOKEN,
    TOMBSTONE,
    Stream,
    be_well,
    heard,
    lives_as_one,
    now_ms,
    some,
)


async def test_create(client: Client) -> None:
    stream = await Stream(client).create()
    state = await stream.state()
    assert (state["status"], state["epoch"], state["attempt"], state["live_until"]) == ("queued", "0", "0", "0")
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()
    assert await client.get(stream.keys[TOMBSTONE]) == b"live p"
    assert stream.keys[IDEMPOTENCY] == idempotency_entry_key(DIGEST)
    assert now_ms() < (await stream.next_look() or 0) <= now_ms() + LEASE_MS + 1000
    await lives_as_one(stream)
    other = Stream(client)
    known = await create(client, SCRIPTS, other.creation())
    assert known == Known(stream.id, "ff", "queued")
    assert not await client.exists(other.keys[STATE])


async def test_a_repeated_create_changes_nothing(client: Client) -> None:
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 1))
    before = await stream.everything()
    assert await create(client, SCRIPTS, stream.creation()) == Created(1, None)
    assert await stream.everything() == before


async def test_the_index_lives_as_long_as_its_longest(client: Client) -> None:
    first = await Stream(client).create()
    index = first.keys[INDEX]
    far = now_ms() + 10 * RETENTION_MS
    await client.pexpireat(index, far)
    other = Stream(client, key=False)
    other.id = first.id[:2] + other.id[2:]
    other.keys = stream_keys(other.id)
    await other.create()
    assert (await other.lives())[INDEX] == far


async def test_cancel(client: Client) -> None:
    stream = Stream(client)
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.MISSING
    await stream.create()
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.UNHELD
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    assert claimed.signal == "cancelled"
    async with heard(client, "w1") as words:
        assert await run_script(client, SCRIPTS.cancel(stream.id, "another reason")) is Refused.HELD
    assert words == [f"cancel {stream.id}"]
    holder = stream.holder(claimed.epoch)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == "cancelled"  # the first reason stands
    await stream.set(lease_until=0)
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.UNHELD
    await stream.finish(holder, 1, [DONE])
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.CLOSED


async def test_delete(client: Client) -> None:
    stream = Stream(client)
    assert await delete_stream(client, SCRIPTS, stream.id) is False
    await stream.create()
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 2))
    async with heard(client, "w1") as words:
        assert await delete_stream(client, SCRIPTS, stream.id) is True
    assert words == [f"cancel {stream.id}"]
    assert await stream.read() == Gone("p", deleted=True)
    assert not await client.exists(*stream.keys[: READERS + 1])
    assert await stream.next_look() is None
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()  # no second generation
    lives = await stream.lives()
    assert lives[TOMBSTONE] > lives[IDEMPOTENCY] > 0
    assert await delete_stream(client, SCRIPTS, stream.id) is False
    assert await stream.acknowledge() is None
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.MISSING


async def test_a_stream_whose_request_is_refused_leaves_its_key_to_a_repeat(client: Client) -> None:
    stream = await Stream(client).create()
    await stream.set(idempotency=DIGEST)
    await undo_stream(client, SCRIPTS, stream.id)
    assert await stream.read() == Gone("p", deleted=True)
    assert isinstance(await create(client, SCRIPTS, Stream(client).creation()), Created)


async def test_acknowledge(client: Client) -> None:
    stream = Stream(client)
    assert await stream.acknowledge() is None
    assert await client.dbsize() == 0
    await stream.create()
    assert await stream.acknowledge() == LogPosition(Status.QUEUED, 0, 0, "queued")
    holder = await stream.claim()
    assert await stream.acknowledge() == LogPosition(Status.RUNNING, 0, 0, "taken")
    await run_script(client, SCRIPTS.note_called(holder, "openai"))
    assert await stream.acknowledge() == LogPosition(Status.RUNNING, 0, 0, "model")
    await stream.append(holder, 1, some(1, 2))
    assert await stream.acknowledge() == LogPosition(Status.RUNNING, holder.epoch, 2, "more")
    await lives_as_one(stream)
    await stream.finish(holder, 3, [DONE])
    before = await stream.everything()
    assert await stream.acknowledge(EventId(holder.epoch, 3)) == LogPosition(Status.COMPLETED, holder.epoch, 3)
    assert await stream.everything() == before


async def test_read(client: Client) -> None:
    stream = await Stream(client).create()
    assert await stream.read() == LogPage(Status.QUEUED, "p", 0, NO_LINEAGE, 0, 1, [])
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 9))
    epoch = holder.epoch
    assert await stream.read() == LogPage(Status.RUNNING, "p", epoch, NO_LINEAGE, 9, 1, some(1, 9))
    assert (await stream.page(EventId(epoch, 4))).events == some(5, 9)
    assert (await stream.page(EventId(epoch + 1, 4))).events == some(1, 9)
    for seq in (9, 10, 10**14):
        page = await stream.page(EventId(epoch, seq))
        assert (page.first, page.events, page.complete) == (seq + 1, [], True)


async def test_read_in_pages(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 100, "y" * 100))
    page = await stream.page(EventId(holder.epoch, 7), most_events=5)
    assert (page.first, page.length, page.complete) == (8, 100, False)
    assert page.events == some(8, 12, "y" * 100)
    page = await stream.page(most_bytes=1)
    assert 1 <= len(page.events) <= 32
    assert not page.complete
    cursor, read = START, list[bytes]()
    while len(read) < 100:
        page = await stream.page(cursor, most_events=7, most_bytes=600)
        assert page.first == len(read) + 1
        read += page.events
        cursor = EventId(page.epoch, len(read))
    assert read == some(1, 100, "y" * 100)


async def test_read_of_missing_streams(client: Client) -> None:
    """Unknown, past its retention, or maybe only lost for a moment."""
    stream = Stream(client)
    assert await stream.read() is Lost.MAYBE
    await be_well(stream)
    assert await stream.read() is None
    await be_well(stream, trouble=now_ms())
    assert await stream.read() is Lost.MAYBE
    await be_well(stream, run_id="another")  # restarted with a file of a moment ago: no sweep has seen it yet
    assert await stream.read() is Lost.MAYBE
    await stream.create()
    await client.delete(stream.keys[STATE])
    assert await stream.read() == Gone("p", deleted=False)
