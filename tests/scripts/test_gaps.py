"""Processes that stop between two steps: what is left, and what one sweep makes of it (docs/adr/0020)."""

from dataclasses import replace
from functools import partial
from typing import Any

from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import create, requeue
from shared.broker.desk_replies import Created, Held, Limited, OtherLanes, SourceGone, Taken
from shared.broker.desk_requests import Kind, Place, Settlement
from shared.broker.keys import (
    DROPPING,
    ENDED,
    QUEUE,
    WAITING,
    account_keys,
    job_id_of,
    job_key,
    of_key,
    principal_streams_key,
    provider_limit_keys,
    removed_key,
    sweep_keys,
)
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.replies import Begun, Code, Refused
from shared.broker.scripts import Holder, StreamScripts
from shared.broker.settlement import settle, settle_account, settle_ended
from shared.broker.sweep import Sweep
from shared.protocol.lifecycle import ACTIVE
from shared.rate_limits import Demand, Limits, TargetLimits, account_of
from tests.scripts.stream import DONE, ROUTE, ROUTES, SCRIPTS, SETTINGS, TOKEN, TOMBSTONE, Stream, some
from tests.scripts.stream import ENDING as FREE
from workers.jobs.claims import claim

ACCOUNT = account_of("p")
ENDING = replace(FREE, tokens=4)
OTHER = f"w2{ROUTE}.token"
DEMAND = Demand(ACCOUNT, Limits(concurrent_streams=3), 10)
KEYS = account_keys(ACCOUNT)
AT_ONCE = StreamScripts(SETTINGS.model_copy(update={"retention_min_s": 0}), ROUTES)
LANED = StreamScripts(SETTINGS, ROUTES)
LANED.target_limits = {"fake": TargetLimits(concurrent_streams=1)}
LANE = provider_limit_keys("fake")[0]


async def created(client: Client) -> Stream:
    stream = Stream(client, key=False)
    new = stream.creation(demand=DEMAND, fields={"expected_tokens": 10})
    assert isinstance(await create(client, SCRIPTS, new), Created)
    return stream


async def running(client: Client) -> tuple[Stream, Holder]:
    stream = await created(client)
    await client.zrem(QUEUE, job_id_of(stream.id))
    claimed = await claim(client, LANED, stream.id, TOKEN)
    assert claimed is not None
    holder = stream.holder(claimed.epoch, TOKEN)
    await stream.append(holder, 1, some(1, 2))
    return stream, holder


async def ended(client: Client) -> Stream:
    """A stream whose worker died after the first step of its ending."""
    stream, holder = await running(client)
    assert (await stream.end(holder, 3, [DONE], ENDING)).code is Code.OK
    return stream


async def ask(client: Client, *command: str) -> Any:
    (reply,) = await run_commands(client, [command])
    return reply


async def hash_at(client: Client, key: str) -> dict[bytes, bytes]:
    flat = await ask(client, "HGETALL", key)
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def tokens_today(client: Client) -> int:
    used = await hash_at(client, KEYS["used"])
    return sum(int(count) for name, count in used.items() if name.startswith(b"d"))


async def sweep(client: Client) -> None:
    """Sweep once, with all streams due."""
    for index, _ in sweep_keys():
        for stream_id in await client.zrange(index, 0, -1):
            await client.zadd(index, {stream_id: 1})
    again = partial(requeue, client, SCRIPTS)
    await Sweep(client, SCRIPTS, SETTINGS, own_id="g1", requeue=again, count=lambda _: None).sweep()


async def agree(client: Client) -> bool:
    """Return True if all counts of the account agree with the states of its streams."""
    active, all_ids, tokens = set[bytes](), set[bytes](), 0
    async for key in client.scan_iter("hr:*:state"):
        stream_id = key.split(b":")[2]
        status, desk_tokens = (
            await ask(client, "HGET", key, "status"),
            await ask(client, "HGET", of_key(stream_id.decode()), "tokens"),
        )
        all_ids.add(stream_id)
        if status.decode() in ACTIVE:
            active.add(stream_id)
        tokens += int(desk_tokens) if status.decode() in ACTIVE else ENDING.tokens
    stored = await hash_at(client, KEYS["stored"])
    total = int(stored.pop(b"total", 0))
    jobs = {job_id_of(stream_id.decode()).encode() for stream_id in active}
    found = {
        "at the desk": {
            key async for key in client.scan_iter("hr:{desk}:of:*") if await ask(client, "HEXISTS", key, "account")
        }
        == {of_key(stream_id.decode()).encode() for stream_id in active},
        "slots": set(await client.zrange(KEYS["streams"], 0, -1)) == active,
        "bytes": set(stored) == all_ids and total == sum(map(int, stored.values())),
        "tokens": await tokens_today(client) == tokens,
        "lanes": set(await client.zrange(LANE, 0, -1)) <= active,
        "waiting": set(await client.zrange(WAITING, 0, -1)) <= active,
        "queue": set(await client.zrange(QUEUE, 0, -1)) <= jobs,
        "jobs": {key.removeprefix(b"arq:job:") async for key in client.scan_iter("arq:job:*")} == jobs,
        "index": {each for index, _ in sweep_keys() for each in await client.zrange(index, 0, -1)} == active,
    }
    assert all(found.values()), [name for name, agrees in found.items() if not agrees]
    return True


async def test_between_two_calls_of_admit(client: Client) -> None:
    """The gateway makes room meanwhile, and takes longer than the sweep waits."""
    for _ in range(3):
        await created(client)
    stream = Stream(client, key=False)
    fields = stream.creation(demand=DEMAND, fields={"expected_tokens": 10}).fields
    assert isinstance(await run_script(client, SCRIPTS.begin(stream.id, fields, "ff", None, DEMAND)), Begun)
    place = Place(stream.id, DEMAND, 5000)
    assert isinstance(await run_script(client, SCRIPTS.desk.admit(place, final=())), Limited)
    await sweep(client)
    assert await client.zscore(WAITING, stream.id) is None
    assert await client.zcard(KEYS["streams"]) == 3
    assert isinstance(await run_script(client, SCRIPTS.desk.admit(place)), Limited)
    await sweep(client)
    assert await stream.state() == {}
    assert await agree(client)


async def test_after_the_pop(client: Client) -> None:
    stream = await created(client)
    await client.zpopmin(QUEUE)
    assert await client.zscore(WAITING, stream.id) is not None
    await sweep(client)
    assert await client.zrange(QUEUE, 0, -1) == [job_id_of(stream.id).encode()]
    assert await agree(client)


async def test_after_take(client: Client) -> None:
    """The next worker takes the lane over, once the lease has passed."""
    stream = await created(client)
    await client.zpopmin(QUEUE)
    assert await run_script(client, LANED.take(stream.id, TOKEN)) == Taken("fake")
    assert await client.zrange(LANE, 0, -1) == [stream.id.encode()]
    assert await client.zscore(WAITING, stream.id) is None
    await sweep(client)
    assert await client.zrange(QUEUE, 0, -1) == [job_id_of(stream.id).encode()]
    assert await run_script(client, LANED.take(stream.id, OTHER)) is Refused.HELD
    await ask(client, "HSET", of_key(stream.id), "until", "0")
    assert await claim(client, LANED, stream.id, OTHER) is not None
    assert await client.zcard(LANE) == 1
    assert await agree(client)


async def test_after_a_claim_that_is_refused(client: Client) -> None:
    """The worker dies before it leaves the lane, which the settlement of the holder's ending frees."""
    stream = await ended(client)
    await ask(client, "HSET", of_key(stream.id), "until", "0")
    assert await run_script(client, LANED.take(stream.id, OTHER, "fake")) == Taken("fake")
    assert await run_script(client, LANED.claim(stream.id, OTHER)) is Refused.CLOSED
    assert await client.zcard(LANE) == 1
    await sweep(client)
    assert await client.zcard(LANE) == 0
    assert await agree(client)


async def test_a_claim_of_a_stream_that_is_gone_frees_its_place(client: Client) -> None:
    stream = await created(client)
    await client.delete(*stream.keys[:4], stream.keys[TOMBSTONE])
    assert await claim(client, LANED, stream.id, TOKEN) is None
    assert await stream.desk() == {}
    assert await client.zcard(KEYS["streams"]) == await client.zcard(LANE) == 0
    assert await ask(client, "HGET", KEYS["stored"], "total") == b"0"


async def test_after_release(client: Client) -> None:
    stream, holder = await running(client)
    assert (await run_script(client, SCRIPTS.release(holder))).code is Code.OK
    assert await client.zrange(LANE, 0, -1) == [stream.id.encode()]
    await sweep(client)
    assert await client.zrange(QUEUE, 0, -1) == [job_id_of(stream.id).encode()]
    assert await agree(client)


async def test_after_finish(client: Client) -> None:
    """Its slot, its lane and its tokens are taken, and it is not counted as an ending."""
    stream = await ended(client)
    assert (await stream.state())["owed"].split()[0] == str(ENDING.tokens)
    assert await client.zrange(LANE, 0, -1) == await client.zrange(KEYS["streams"], 0, -1) == [stream.id.encode()]
    assert await client.exists(ENDED) == 0
    assert (await stream.next_look() or 0) > 0
    await sweep(client)
    assert await client.zrange(ENDED, 0, -1) == [stream.id.encode()]
    assert "owed" not in await stream.state()
    assert await agree(client)
    await sweep(client)
    assert await agree(client)


async def test_after_settle(client: Client) -> None:
    stream, holder = await running(client)
    reply = await stream.end(holder, 3, [DONE], ENDING)
    settlement = Settlement(stream.id, ACCOUNT, Kind.ENDED, SCRIPTS.owed(ENDING, reply))
    assert isinstance(await run_script(client, SCRIPTS.desk.settle(settlement)), OtherLanes), "it names no lane"
    assert await stream.desk()
    await settle(client, SCRIPTS, settlement)
    assert await stream.desk() == {}
    assert "owed" in await stream.state()
    await sweep(client)
    assert await client.zcard(ENDED) == 1
    assert await agree(client)


async def test_after_delete(client: Client) -> None:
    for make, tokens in ((created, 10), (ended, 20)):
        stream = await make(client)
        assert await run_script(client, SCRIPTS.delete(stream.id)) is not None
        assert await client.zscore(KEYS["streams"], stream.id) is not None
        assert await ask(client, "HGET", KEYS["stored"], stream.id) is not None
        assert await stream.next_look() is not None
        await sweep(client)
        assert await stream.next_look() is None
        assert await client.zscore(principal_streams_key("p"), stream.id) is None
        assert await client.zscore(removed_key(ACCOUNT), f"{stream.id} ") is not None
        assert (
            await client.zcard(KEYS["streams"]) == await client.zcard(KEYS["kept"]) == await client.zcard(LANE) == 0
        )
        assert await client.exists(QUEUE, WAITING, job_key(stream.id), of_key(stream.id)) == 0
        assert await tokens_today(client) == tokens, "the use of a deleted stream is unknown"


async def test_a_deletion_before_the_settlement_counts_the_ending(client: Client) -> None:
    stream, holder = await running(client)
    owed = SCRIPTS.owed(ENDING, await stream.end(holder, 3, [DONE], ENDING))
    assert await delete_stream(client, SCRIPTS, stream.id)
    assert await tokens_today(client) == ENDING.tokens
    assert await stream.next_look() is None
    await settle_ended(client, SCRIPTS, Settlement(stream.id, ACCOUNT, Kind.ENDED, owed))
    assert await ask(client, "HGET", KEYS["stored"], "total") == b"0", "a late settlement counts no bytes"


async def test_a_settlement_after_the_sweep_of_a_deletion_counts_no_bytes(client: Client) -> None:
    """The worker was away, and so was the process that deleted the stream; the sweep does not know the digest."""
    stream = Stream(client)
    new = stream.creation(demand=DEMAND, fields={"expected_tokens": 10})
    assert isinstance(await create(client, SCRIPTS, new), Created)
    owed = SCRIPTS.owed(ENDING, await stream.end(await stream.claim(), 1, [DONE], ENDING))
    await run_script(client, SCRIPTS.delete(stream.id))
    await sweep(client)
    late = Settlement(stream.id, ACCOUNT, Kind.ENDED, owed, stream.idempotency or "")
    await settle_ended(client, SCRIPTS, late)
    assert await ask(client, "HGET", KEYS["stored"], "total") == b"0"


async def test_after_may_drop(client: Client) -> None:
    """No stream may be made from it for a minute; a drop that is refused ends that."""
    source = await ended(client)
    assert await drop_answer(client, AT_ONCE, source.id) == 0, "it is not settled yet"
    assert await client.zcard(DROPPING) == 0
    await sweep(client)
    assert await run_script(client, SCRIPTS.desk.may_drop(source.id, ACCOUNT)) is True
    turn = Stream(client, key=False)
    new = turn.creation(demand=DEMAND, fields={"expected_tokens": 10, "sources": source.id})
    assert await create(client, SCRIPTS, new) == SourceGone(source.id)
    assert await turn.state() == {}
    await client.zadd(DROPPING, {source.id: 1})
    assert isinstance(await create(client, SCRIPTS, new), Created)
    assert await run_script(client, SCRIPTS.desk.may_drop(source.id, ACCOUNT)) is False
    assert await agree(client)


async def test_after_drop(client: Client) -> None:
    stream = await ended(client)
    await sweep(client)
    assert await run_script(client, SCRIPTS.desk.may_drop(stream.id, ACCOUNT)) is True
    assert await run_script(client, AT_ONCE.drop(stream.id)) is not None
    assert await ask(client, "HGET", KEYS["stored"], stream.id) is not None
    assert await stream.next_look() is not None
    await sweep(client)
    assert await client.zscore(principal_streams_key("p"), stream.id) is None
    assert await client.zcard(ENDED) == 0
    assert await hash_at(client, KEYS["stored"]) == {b"total": b"0"}
    assert await stream.next_look() is None


async def test_an_unended_stream_expires(client: Client) -> None:
    stream, _ = await running(client)
    await client.delete(*stream.keys[:4])
    for tombstone in (True, False):
        if not tombstone:
            await client.delete(stream.keys[TOMBSTONE])
        await sweep(client)
        assert await stream.next_look() is None
        assert await stream.desk() == {}
        assert await client.zcard(KEYS["streams"]) == await client.zcard(LANE) == 0


async def test_after_restore_with_an_emptied_desk(client: Client) -> None:
    stream, holder = await running(client)
    fields = await stream.state()
    await client.flushall()
    reply = await run_script(client, SCRIPTS.restore(holder, some(1, 2), fields=fields, body_hash="ff"))
    assert reply.code is Code.OK
    assert await stream.desk() == {}
    assert (await stream.renew(holder, "fake"))[1] is Held.OK
    assert await client.zrange(LANE, 0, -1) == await client.zrange(KEYS["streams"], 0, -1) == [stream.id.encode()]
    await sweep(client)
    assert await client.exists(QUEUE), "its lease is over for the sweep, and a worker that takes it is refused"
    assert await run_script(client, LANED.take(stream.id, OTHER, "fake")) is Refused.HELD
    late = (await stream.place(holder, "fake")).hold(SCRIPTS, reply, is_lost=True)
    await stream.finish(holder, 3, [DONE])
    assert await run_script(client, late) is Held.OTHER
    assert await client.zcard(LANE) == await client.zcard(KEYS["streams"]) == 0


async def test_a_stream_that_is_deleted_between_renew_and_hold_is_not_counted(client: Client) -> None:
    """Also if the desk had lost it: the settlement leaves a mark."""
    for is_lost in (False, True):
        stream, holder = await running(client)
        renewed = await run_script(client, SCRIPTS.renew(holder))
        place = await stream.place(holder)
        if is_lost:
            await client.delete(of_key(stream.id), *KEYS.values(), LANE)
        assert await delete_stream(client, SCRIPTS, stream.id)
        held = await run_script(client, place.hold(SCRIPTS, renewed))
        assert held is (Held.OTHER if is_lost else Held.UNKNOWN)
        if is_lost:
            assert await run_script(client, place.hold(SCRIPTS, renewed, is_lost=True)) is Held.OTHER
        assert await client.zcard(KEYS["streams"]) == await client.zcard(LANE) == 0
        assert await ask(client, "HGET", KEYS["stored"], stream.id) is None
        assert (await run_script(client, SCRIPTS.renew(holder))).code is Code.CLOSED


async def test_a_stream_that_is_deleted_before_the_sweep_counts_it_is_not_counted(client: Client) -> None:
    """The sweep has read its state, and then its owner deletes it."""
    stream = await created(client)
    await client.delete(of_key(stream.id), *KEYS.values(), QUEUE, WAITING, job_key(stream.id))
    assert await delete_stream(client, SCRIPTS, stream.id)
    place = Place(stream.id, DEMAND, 5000)
    assert not isinstance(await run_script(client, SCRIPTS.desk.readmit(place, is_limited=True)), Created)
    assert await client.zcard(KEYS["streams"]) == await client.zcard(QUEUE) == 0


async def test_a_hold_that_comes_after_the_release_takes_nothing(client: Client) -> None:
    stream, holder = await running(client)
    renewed, place = await run_script(client, SCRIPTS.renew(holder)), await stream.place(holder)
    place.lanes = "fake"
    await run_script(client, SCRIPTS.release(holder))
    assert await run_script(client, SCRIPTS.desk.leave(stream.id, holder.token, "fake", requeue=True)) is True
    assert await run_script(client, place.hold(SCRIPTS, renewed)) is Held.OTHER
    assert await claim(client, LANED, stream.id, OTHER) is not None


async def test_an_ended_stream_frees_its_slot_for_the_next_request(client: Client) -> None:
    """Also if its worker has not settled it: ten thousand requests in a row, one slot, and no refusal."""
    one = Demand(ACCOUNT, Limits(concurrent_streams=1), 10)
    for _ in range(20):
        stream = Stream(client, key=False)
        new = stream.creation(demand=one, fields={"expected_tokens": 10})
        assert isinstance(await create(client, SCRIPTS, new), Created)
        other = Stream(client, key=False)
        assert isinstance(await create(client, SCRIPTS, other.creation(demand=one)), Limited)
        await stream.end(await stream.claim(), 1, [DONE])
    await settle_account(client, SCRIPTS, ACCOUNT)
    assert await client.zcard(KEYS["streams"]) == 0


async def test_a_stream_that_was_admitted_and_never_created_gives_all_back(client: Client) -> None:
    place = Place("ab" + 32 * "0", Demand(ACCOUNT, Limits(requests_per_minute=5), 10), 5000)
    assert isinstance(await run_script(client, SCRIPTS.desk.admit(place)), Created)
    await settle(client, SCRIPTS, Settlement(place.stream_id, ACCOUNT, Kind.REFUSED))
    used = await hash_at(client, KEYS["used"])
    assert set(used.values()) == {b"0"}
    assert await agree(client)
