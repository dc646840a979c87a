"""Stored bytes of an account, and answers that are dropped to free storage (rules S12 and S13)."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.cluster.servers import ONLY
from shared.broker.creation import create
from shared.broker.desk_replies import Created, Held, Stored
from shared.broker.dropping import Dropping, Memory, memory_of
from shared.broker.ending import restorable
from shared.broker.keys import ABOVE_LIMIT, account_keys, of_key
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.replies import Claimed, Gone
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol.chunks import compress
from shared.protocol.ids import START
from shared.rate_limits import Demand, Limits
from tests.scripts.stream import (
    ANSWERS,
    DIGEST,
    DONE,
    ENDING,
    IDEMPOTENCY,
    LOG,
    READERS,
    ROUTES,
    SCRIPTS,
    SETTINGS,
    TOKEN,
    TOMBSTONE,
    Stream,
    be_well,
    event,
    now_ms,
    some,
)

_STREAM_BYTES = 5120
_REQUEST = '{"messages":[]}'
_AT_ONCE = SETTINGS.model_copy(update={"retention_min_s": 0})
_DROPS = StreamScripts(_AT_ONCE, ROUTES)


async def stored(client: Client) -> dict[str, int]:
    """Bytes of each stream of the account, and their total."""
    found: dict[bytes, bytes] = await client.hgetall("hr:{desk}:stored:an-account")  # type: ignore[misc]
    return {name.decode(): int(n) for name, n in found.items()}


async def ended(client: Client, events: int = 2, **fields: str | int) -> Stream:
    stream = await Stream(client, key=False).create(**fields)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, events))
    await stream.finish(holder, events + 1, [DONE])
    return stream


async def drop(stream: Stream) -> int:
    return await drop_answer(stream.client, _DROPS, stream.id)


def size(*events: bytes) -> int:
    return sum(map(len, events))


async def test_bytes_are_counted_exactly_and_given_back(client: Client) -> None:
    stream = await Stream(client).create(metadata="{}", shown="abc")
    content = len(_REQUEST) + 2 + 3
    assert await stored(client) == {stream.id: _STREAM_BYTES + content, "total": _STREAM_BYTES + content}
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.renew(holder)
    assert (await stored(client))["total"] == _STREAM_BYTES + content + size(*some(1, 2))
    later = await stream.take_over()
    await stream.append(later, 1, some(1, 3, "another"))  # it replaces the first attempt's events
    await stream.renew(later)
    assert (await stored(client))["total"] == _STREAM_BYTES + content + size(*some(1, 3, "another"))
    await stream.finish(later, 4, [DONE])
    chunks = await stream.stored_log()
    assert size(*chunks) < size(*some(1, 3, "another"), DONE)
    without_request = _STREAM_BYTES + 5 + size(*chunks)
    assert await stored(client) == {stream.id: without_request, "total": without_request}
    other = await Stream(client, key=False).create()
    assert (await stored(client))["total"] == without_request + _STREAM_BYTES + len(_REQUEST)
    await delete_stream(client, SCRIPTS, stream.id)
    assert await stored(client) == dict.fromkeys((other.id, "total"), _STREAM_BYTES + len(_REQUEST))


async def test_bytes_are_given_back_at_the_end_of_retention(client: Client) -> None:
    first = await ended(client)
    await client.delete(*first.keys[:4])
    await client.zadd("hr:{desk}:kept:an-account", {first.id: now_ms() - 1})
    second = await Stream(client, key=False).create()
    assert set(await stored(client)) == {second.id, "total"}
    assert (await stored(client))["total"] == _STREAM_BYTES + len(_REQUEST)


async def test_a_restored_stream_counts_once(client: Client) -> None:
    stream = await Stream(client).create()
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    holder = Holder(stream.id, claimed.epoch, TOKEN, stream.idempotency)
    await stream.append(holder, 1, some(1, 2))
    expected = _STREAM_BYTES + len(_REQUEST) + size(*some(1, 2))
    for lost in (stream.keys, [key async for key in client.scan_iter()]):
        for key in lost:
            await client.delete(key)
        restore = SCRIPTS.restore(holder, some(1, 2), fields=restorable(claimed.fields), body_hash="ff")
        await run_script(client, restore)
        assert (await stream.renew(holder))[1] is Held.OK
        assert await stored(client) == {stream.id: expected, "total": expected}


async def test_a_stream_beyond_the_limit_is_refused_and_leaves_nothing(client: Client) -> None:
    await Stream(client, key=False).create()
    one = _STREAM_BYTES + len(_REQUEST)
    for most, fits in ((2 * one - 1, False), (2 * one, True)):
        other = Stream(client, key=False)
        before = await stored(client)
        demand = Demand("an-account", Limits(stored_bytes=most), 0)
        reply = await create(client, SCRIPTS, other.creation(demand=demand))
        assert reply == Created(2, None) if fits else reply == Stored(one, one)
        assert fits or (await stored(client), await other.state()) == (before, {})


async def test_a_dropped_answer_leaves_its_tombstone(client: Client) -> None:
    stream = await ended(client)
    bytes_before = (await stored(client))["total"]
    assert await drop(stream) == bytes_before
    assert await stream.state() == {}
    assert await client.exists(stream.keys[LOG]) == 0
    assert await stream.read() == Gone("p", deleted=False, dropped=True)
    assert await stored(client) == {"total": 0}
    assert await client.exists(stream.keys[ANSWERS]) == 0
    assert await drop(stream) == 0


async def test_answers_that_must_be_kept_are_not_dropped(client: Client) -> None:
    recent = await ended(client)
    assert await drop_answer(client, SCRIPTS, recent.id) == 0, "ended less than the minimum ago"
    running = await Stream(client, key=False).create()
    assert await drop(running) == 0
    await running.claim()
    assert await drop(running) == 0
    read = await ended(client)
    await read.acknowledge()
    assert await drop(read) == 0, "it has a live reader"
    await run_script(client, SCRIPTS.leave(read.id, "g1", START))
    assert await drop(read) > 0
    source = await ended(client)
    turn = await Stream(client, key=False).create(sources=f"{recent.id} {source.id}")
    holder = await turn.claim()
    assert await drop(source) == 0, "a running turn was made from it"
    await turn.finish(holder, 1, [DONE])
    assert await drop(source) > 0


async def test_the_sources_of_a_restored_turn_are_kept(client: Client) -> None:
    source = await ended(client)
    turn = await Stream(client, key=False).create(sources=source.id)
    claimed = await run_script(client, SCRIPTS.claim(turn.id, TOKEN))
    assert isinstance(claimed, Claimed)
    await client.delete(*turn.keys[:4])
    await client.delete(of_key(turn.id), *account_keys("an-account").values())
    await be_well(turn)
    holder = Holder(turn.id, claimed.epoch, TOKEN, None)
    await run_script(client, SCRIPTS.restore(holder, [], fields=restorable(claimed.fields), body_hash="ff"))
    await turn.renew(holder)
    assert await drop(source) == 0
    await delete_stream(client, SCRIPTS, turn.id)
    assert await drop(source) > 0


def test_buffers_of_clients_cost_no_answers() -> None:
    info = {"used_memory": "100", "maxmemory": "50", "mem_clients_normal": "30", "mem_not_counted_for_evict": "20"}
    assert memory_of(info) == Memory(used=50, limit=50)


async def test_under_pressure_the_oldest_answers_go_first(client: Client) -> None:
    streams = [await ended(client) for _ in range(20)]
    for age, stream in enumerate(reversed(streams)):
        await client.zadd(stream.keys[ANSWERS], {stream.id: now_ms() - 1000 * age - 1000})
    await streams[0].acknowledge()
    per_stream = (await stored(client))[streams[0].id]
    dropping = Dropping(client, SCRIPTS, _AT_ONCE)
    assert await dropping.relieve({ONLY: Memory(used=80, limit=100)}) == 0
    dropping = Dropping(client, _DROPS, _AT_ONCE)
    assert await dropping.relieve({ONLY: Memory(used=80 + 2 * per_stream, limit=100)}) == 2
    kept = [bool(await stream.state()) for stream in streams]
    assert kept == [True, False, False, *[True] * 17], "the oldest but the one with a reader"
    assert await dropping.relieve({ONLY: Memory(used=10**9, limit=100)}) == 17
    assert await dropping.relieve({ONLY: Memory(used=10**9, limit=0)}) == 0, (
        "without a maxmemory there is no pressure"
    )


@pytest.mark.parametrize("retention_min_s", [0, 10**6])
async def test_an_account_makes_room_with_its_own_answers(client: Client, retention_min_s: int) -> None:
    settings = SETTINGS.model_copy(update={"retention_min_s": retention_min_s})
    mine = [await ended(client) for _ in range(3)]
    theirs = Stream(client, key=False)
    await create(client, SCRIPTS, theirs.creation(demand=Demand("another", Limits(), 0)))
    await theirs.finish(await theirs.claim(), 1, [DONE])
    for age, stream in enumerate(reversed(mine)):
        await client.zadd("hr:{desk}:kept:an-account", {stream.id: now_ms() + 1000 * (100 - age)})
    dropping = Dropping(client, StreamScripts(settings, ROUTES), settings)
    assert await dropping.make_room("an-account", 1) == (0 if retention_min_s else 1)
    assert [bool(await stream.state()) for stream in mine] == [bool(retention_min_s), True, True]
    assert await theirs.state()


async def test_streams_of_an_account_far_above_its_limit_are_stopped(client: Client) -> None:
    """Its oldest answers are dropped first, by the next sweep."""
    old = await ended(client)
    most = 4 * (_STREAM_BYTES + len(_REQUEST))
    running, waiting = Stream(client, key=False), Stream(client, key=False)
    for stream in (running, waiting):
        await create(client, SCRIPTS, stream.creation(demand=Demand("an-account", Limits(stored_bytes=most), 0)))
    holder = await running.claim()
    await running.append(holder, 1, [event(1, "x" * most)])
    assert (await running.renew(holder))[1] is Held.FAR
    later = await waiting.claim()
    assert (await waiting.renew(later))[1] is Held.FAR
    assert await old.state()
    await Dropping(client, _DROPS, _AT_ONCE).relieve_accounts()
    assert await old.state() == {}
    assert await client.zcard(ABOVE_LIMIT) == 0


async def test_an_answer_that_fits_once_it_is_compressed_is_kept(client: Client) -> None:
    """A stream that is stopped for its bytes takes a fraction of them after its end."""
    most = 4 * (_STREAM_BYTES + len(_REQUEST))
    stream = Stream(client, key=False)
    await create(client, SCRIPTS, stream.creation(demand=Demand("an-account", Limits(stored_bytes=most), 0)))
    holder = await stream.claim()
    await stream.append(holder, 1, [event(1, "x" * most)])
    assert (await stream.renew(holder))[1] is Held.FAR
    await stream.finish(holder, 2, [DONE])
    await Dropping(client, _DROPS, _AT_ONCE).relieve_accounts()
    assert (await stream.state())["status"] == "completed"


async def test_of_the_oldest_of_many_removed_streams_nothing_stays(client: Client) -> None:
    """Cycles of creation and deletion would fill Redis with tombstones and idempotency entries."""
    removed = "hr:{desk}:removed:an-account"
    old, young, last = await Stream(client).create(), Stream(client, key=False), Stream(client, key=False)
    await delete_stream(client, SCRIPTS, old.id)
    await client.zadd(removed, {f"{n:034x} ": now_ms() - 100_000 for n in range(10_000)})
    for stream in (young, last):
        await stream.create()
        await delete_stream(client, SCRIPTS, stream.id)
        assert await client.exists(old.keys[TOMBSTONE], old.keys[IDEMPOTENCY]) == (2 if stream is young else 0)
        await client.zadd(removed, {f"{old.id} {DIGEST}": now_ms() - 200_000})
    assert await client.exists(last.keys[TOMBSTONE]) == 1


async def test_a_stream_that_expired_before_its_end_keeps_no_source(client: Client) -> None:
    source = await ended(client)
    turn = await Stream(client, key=False).create(sources=source.id)
    await client.delete(*turn.keys[:4])
    await client.zadd("hr:{desk}:kept:an-account", {turn.id: now_ms() - 1})
    assert await drop(source) == 0
    await Stream(client, key=False).create()
    assert await drop(source) > 0


async def test_a_log_of_thousands_of_events_is_counted_whole(client: Client) -> None:
    scripts = StreamScripts(SETTINGS.model_copy(update={"cap": 65_536, "window": 65_536}), ROUTES)
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    events = some(1, 2501)
    await run_script(client, scripts.append(holder, 1, events))
    await stream.renew(holder)
    more = some(2502, 4000)
    chunks = compress([*events, *more, DONE])
    reply = await run_script(client, scripts.finish(holder, 2502, [*more, DONE], chunks, ENDING))
    assert reply.size == _STREAM_BYTES + size(*chunks.data)
    assert await client.exists(stream.keys[READERS]) == 0
