"""Rate limits and turns."""

import asyncio

import pytest

from shared.broker.client import Client, run_script
from shared.broker.creation import create
from shared.broker.desk_replies import Created, Held, Limited
from shared.broker.ending import restorable
from shared.broker.keys import QUEUE, of_key, stream_of_job
from shared.broker.removal import delete_stream
from shared.broker.replies import Claimed, Code
from shared.broker.scripts import Ending
from shared.protocol.lifecycle import Status
from shared.rate_limits import Demand, Limits
from tests.scripts.stream import (
    DONE,
    SCRIPTS,
    TOKEN,
    Stream,
    now_ms,
    some,
)


def limits(**some: int) -> Demand:
    return Demand("account", Limits(**some), 10)


async def used(client: Client, **counts: int) -> int:
    """Make the account's counts so, ages in seconds as ``r59``; the second that it is now, by Redis' clock."""
    for _ in range(2):  # not at the edge of a second
        second, micro = await client.time()
        await asyncio.sleep((1_000_000 - micro) / 1_000_000 if micro > 500_000 else 0)
    second, _ = await client.time()
    fields = {f"{name[0]}{second - int(name[1:])}": n for name, n in counts.items()}
    await client.hset("hr:{desk}:used:account", mapping=fields)  # type: ignore[misc]
    await client.expire("hr:{desk}:used:account", 1000)
    return int(second)


@pytest.mark.parametrize(
    ("counts", "some", "limit", "about_s"),
    [
        ({"r0": 3}, {"requests_per_minute": 3}, "requests_per_minute", 60),
        ({"r30": 3}, {"requests_per_minute": 3}, "requests_per_minute", 30),
        ({"r30": 1, "r10": 2}, {"requests_per_minute": 3}, "requests_per_minute", 30),
        ({"r30": 1, "r10": 3}, {"requests_per_minute": 3}, "requests_per_minute", 50),
        ({"t50": 5, "t20": 5}, {"tokens_per_minute": 19}, "tokens_per_minute", 10),
        ({"t50": 5, "t20": 10}, {"tokens_per_minute": 19}, "tokens_per_minute", 40),
        # Of two limits, the reply names the one that is exceeded for longer.
        ({"r50": 3, "t20": 30}, {"requests_per_minute": 3, "tokens_per_minute": 30}, "tokens_per_minute", 40),
    ],
)
async def test_a_refusal_names_the_time_until_there_is_room(
    client: Client, counts: dict[str, int], some: dict[str, int], limit: str, about_s: int
) -> None:
    second = await used(client, **counts)
    answer = await create(client, SCRIPTS, Stream(client).creation(demand=limits(**some)))
    assert isinstance(answer, Limited)
    assert answer.limit == limit
    later, _ = await client.time()
    assert about_s - 2 - (later - second) < answer.wait_s <= about_s


async def test_a_minute_is_this_second_and_the_59_before_it(client: Client) -> None:
    second = await used(client, r60=5, r59=1, t60=50, t300=7)
    demand = limits(requests_per_minute=3, tokens_per_minute=30)
    answer = await create(client, SCRIPTS, Stream(client).creation(demand=demand))
    assert isinstance(answer, Created)
    assert answer.used is not None
    assert (answer.used.requests, answer.used.tokens, answer.used.streams) in {(2, 10, 1), (1, 10, 1)}
    left = {name.decode() for name in await client.hkeys("hr:{desk}:used:account")}  # type: ignore[misc]
    assert not left & {f"r{second - 60}", f"t{second - 60}", f"t{second - 300}"}  # expired counts are deleted


async def test_every_way_out_gives_the_slot_back_once(client: Client) -> None:
    """An ending, a delete, and a stream that Redis lost and its worker brought back."""
    demand = limits(concurrent_streams=2, tokens_per_day=1000)

    async def taken() -> tuple[int, int]:
        (today,) = [int(n) for k, n in (await client.hgetall(used_key)).items() if k[:1] == b"d"]  # type: ignore[misc]
        return await client.zcard("hr:{desk}:streams:account"), today

    used_key = "hr:{desk}:used:account"
    ended, deleted = [Stream(client, key=False) for _ in range(2)]
    for stream in (ended, deleted):
        new = stream.creation(demand=demand, fields={"expected_tokens": 10})
        assert isinstance(await create(client, SCRIPTS, new), Created)
    assert await taken() == (2, 20)
    refused = await create(client, SCRIPTS, Stream(client, key=False).creation(demand=demand))
    assert isinstance(refused, Limited)
    assert (refused.limit, refused.wait_s) == ("concurrent_streams", 1)

    claimed = await run_script(client, SCRIPTS.claim(ended.id, TOKEN))
    assert isinstance(claimed, Claimed)
    holder = ended.holder(claimed.epoch)
    await ended.append(holder, 1, some(1, 2))
    await client.delete("hr:{desk}:streams:account")
    await client.delete(*ended.keys[:7])
    fields = restorable(claimed.fields)
    await client.delete(of_key(ended.id))
    assert (
        await run_script(client, SCRIPTS.restore(holder, some(1, 2), fields=fields, body_hash="ff"))
    ).code is Code.OK
    assert await taken() == (0, 20)
    assert (await ended.renew(holder))[1] is Held.OK
    assert await taken() == (1, 20)
    ending = Ending(Status.COMPLETED, {"finish_reason": "stop", "reason": "", "usage": "null"}, 4)
    for _ in range(2):
        await ended.finish(holder, 3, [DONE], ending)
    assert await taken() == (0, 14)

    await client.zadd("hr:{desk}:streams:account", {deleted.id: now_ms() + 60_000})
    await deleted.claim()
    for _ in range(2):
        await delete_stream(client, SCRIPTS, deleted.id)
    assert await taken() == (0, 14)  # the use of a stream that is deleted while it runs is unknown


async def test_accounts_take_turns(client: Client) -> None:
    """Each account has one turn a round; a later account starts in the round that is being taken."""
    ids: dict[str, str] = {}

    async def put(name: str) -> None:
        stream = Stream(client, key=False)
        ids[stream.id] = name
        assert isinstance(
            await create(client, SCRIPTS, stream.creation(demand=Demand(name[0], Limits(), 0))), Created
        )

    async def take(n: int) -> list[str]:
        return [ids[stream_of_job(job_id.decode())] for job_id, _ in await client.zpopmin(QUEUE, n)]

    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await put(name)
    assert {*await take(2)} == {"a1", "b1"}
    await put("c1")
    assert {*await take(3)} == {"a2", "b2", "c1"}
    await put("b3")
    await put("c2")
    assert {*await take(3)} == {"a3", "b3", "c2"}
    assert await take(9) == ["a4"]
    await put("a5")
    await put("d1")
    assert {*await take(2)} == {"a5", "d1"}  # an empty queue resets the turns
