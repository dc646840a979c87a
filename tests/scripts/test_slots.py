"""Slots and rates of providers: claims, calls and the release of parked streams."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.desk_replies import Held, OtherLanes, Parked, Taken, TargetFull
from shared.broker.keys import QUEUE, job_id_of, of_key, provider_limit_keys
from shared.broker.replies import Code
from shared.broker.scripts import Holder, StreamScripts
from shared.rate_limits import TargetLimits
from shared.settings import Settings
from tests.scripts.stream import DONE, ENDING, ROUTES, SETTINGS, Stream, be_well, some
from workers.jobs.claims import claim


def limited(**limits: TargetLimits) -> StreamScripts:
    made = StreamScripts(Settings.model_construct(lease_s=SETTINGS.lease_s), ROUTES)
    made.target_limits = limits
    return made


async def claimed(client: Client, made: StreamScripts, **fields: str | int) -> tuple[Stream, Holder]:
    stream = await Stream(client, key=False).create(**fields)
    reply = await claim(client, made, stream.id, "w1.token")
    assert reply is not None
    return stream, stream.holder(reply.epoch, "w1.token")


async def slot(
    client: Client, made: StreamScripts, holder: Holder, provider: str, target: str = ""
) -> TargetFull | OtherLanes | str | None:
    """Take a slot for a call, as a worker that knows the stream's lanes."""
    held: bytes | None = await client.hget(of_key(holder.stream_id), "lane")  # type: ignore[misc]
    return await run_script(client, made.take_slot(holder, provider, target, held=(held or b"").decode()))


async def running(client: Client, lane: str) -> int:
    count: int = await client.zcard(provider_limit_keys(lane)[0])
    return count


async def used(client: Client, provider: str) -> dict[str, int]:
    """Return requests and tokens of this minute."""
    flat: dict[bytes, bytes] = await client.hgetall(provider_limit_keys(provider)[3])  # type: ignore[misc]
    counts = {"r": 0, "t": 0}
    for name, count in flat.items():
        counts[name[:1].decode()] += int(count)
    return counts


async def test_a_claim_takes_the_first_target_with_room(client: Client) -> None:
    made = limited(a=TargetLimits(concurrent_streams=1), b=TargetLimits(concurrent_streams=1))
    lanes = [(await (await claimed(client, made, lanes="a b"))[0].desk())["lane"] for _ in range(2)]
    assert lanes == ["a", "b"]
    third = await Stream(client, key=False).create(lanes="a b")
    assert isinstance(await run_script(client, made.take(third.id, "w1.x")), Parked)
    turn = int((await third.desk())["turn"])
    assert [await client.zscore(provider_limit_keys(provider)[1], third.id) for provider in "ab"] == [turn, turn]
    unlimited = await Stream(client, key=False).create(lanes="a c")
    assert isinstance(await run_script(client, made.take(unlimited.id, "w1.x")), Taken)


async def test_a_stream_parked_for_two_providers_is_released_by_either(client: Client) -> None:
    limits = TargetLimits(concurrent_streams=1)
    made = limited(a=limits, b=limits)
    await claimed(client, made, lanes="a b")
    second, holder = await claimed(client, made, lanes="a b")
    parked = await Stream(client, key=False).create(lanes="a b")
    assert isinstance(await run_script(client, made.take(parked.id, "w1.x")), Parked)
    assert await run_script(client, made.desk.unpark("b", limits)) == []
    assert (await second.finish(holder, 1, [DONE])).code is Code.OK
    assert await run_script(client, made.desk.unpark("a", limits)) == []
    assert await run_script(client, made.desk.unpark("b", limits)) == [parked.id]
    assert isinstance(await run_script(client, made.take(parked.id, "w1.x")), Taken)
    assert await client.zcard(provider_limit_keys("a")[1]) == 0
    assert "parked" not in await parked.desk()


async def test_a_call_uses_the_slot_of_its_claim_and_a_further_one_counts_again(client: Client) -> None:
    made = limited(a=TargetLimits(2, 5, 1000))
    _, holder = await claimed(client, made, provider="a", expected_tokens=100)
    assert (await running(client, "a"), await used(client, "a")) == (1, {"r": 1, "t": 100})
    assert await slot(client, made, holder, "a") == "a"
    assert (await running(client, "a"), await used(client, "a")) == (1, {"r": 1, "t": 100})
    assert await slot(client, made, holder, "a") == "a"
    assert (await running(client, "a"), await used(client, "a")) == (1, {"r": 2, "t": 100})


async def test_another_provider_frees_the_slot_and_the_reservation(client: Client) -> None:
    made = limited(a=TargetLimits(2, 5, 1000), b=TargetLimits(2, 5, 1000))
    _, holder = await claimed(client, made, provider="a", expected_tokens=100)
    assert await slot(client, made, holder, "b", "b/m") == "b\nb/m"
    assert await used(client, "a") == {"r": 0, "t": 0}  # no call was made
    assert await used(client, "b") == {"r": 1, "t": 100}
    assert [await running(client, lane) for lane in ("a", "b", "b/m")] == [0, 1, 1]
    await run_script(client, made.renew(holder))
    assert await slot(client, made, holder, "c") == ""
    assert [await running(client, lane) for lane in ("a", "b", "b/m", "c")] == [0, 0, 0, 0]
    assert await used(client, "b") == {"r": 1, "t": 0}


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (TargetLimits(concurrent_streams=1), "concurrent_streams"),
        (TargetLimits(requests_per_minute=1), "requests_per_minute"),
        (TargetLimits(tokens_per_minute=150), "tokens_per_minute"),
    ],
)
async def test_a_full_target_refuses_and_changes_nothing(client: Client, limits: TargetLimits, limit: str) -> None:
    made = limited(a=limits, b=TargetLimits(concurrent_streams=9))
    await claimed(client, made, provider="a", expected_tokens=100)
    stream, holder = await claimed(client, made, provider="b", expected_tokens=100)
    before = await stream.everything()
    full = await slot(client, made, holder, "a")
    assert isinstance(full, TargetFull)
    assert full.limit == limit
    assert 0 < full.wait_s <= 60
    assert await stream.everything() == before
    assert [await running(client, lane) for lane in "ab"] == [1, 1]


async def test_a_request_of_more_tokens_than_the_limit_needs_all_of_it(client: Client) -> None:
    made = limited(a=TargetLimits(tokens_per_minute=50))
    stream, holder = await claimed(client, made, provider="a", expected_tokens=100)
    other = await Stream(client, key=False).create(provider="a", expected_tokens=1)
    assert isinstance(await run_script(client, made.take(other.id, "w1.x")), Parked)
    assert await slot(client, made, holder, "a") == "a"
    await stream.finish(holder, 1, [DONE])
    assert await used(client, "a") == {"r": 1, "t": ENDING.tokens}


async def test_only_the_holder_takes_slots(client: Client) -> None:
    made = limited(a=TargetLimits(concurrent_streams=1))
    stream = await Stream(client, key=False).create(provider="other")
    old = await stream.claim()
    await be_well(stream)
    new = await stream.take_over()
    assert await slot(client, made, old, "a") is None
    assert await running(client, "a") == 0
    assert await slot(client, made, new, "a") == "a"
    assert await running(client, "a") == 1


async def test_a_takeover_and_a_release_free_the_slot(client: Client) -> None:
    made = limited(a=TargetLimits(concurrent_streams=1), b=TargetLimits(concurrent_streams=1))
    stream, holder = await claimed(client, made, provider="a")
    assert await slot(client, made, holder, "b") == "b"
    await stream.expire_lease()
    reply = await claim(client, made, stream.id, "w2.x")
    assert reply is not None
    assert [await running(client, lane) for lane in "ab"] == [1, 0]
    later = stream.holder(reply.epoch, "w2.x")
    await stream.append(later, 1, some(1, 1))
    assert (await run_script(client, made.release(later))).code is Code.OK
    assert await run_script(client, made.desk.leave(stream.id, "w1.token", "b")) is False, "it has another holder"
    assert await run_script(client, made.desk.leave(stream.id, "w2.x", "")) == OtherLanes("a\n")
    assert await run_script(client, made.desk.leave(stream.id, "w2.x", "a", requeue=True)) is True
    assert await client.zrange(QUEUE, 0, 0) == [job_id_of(stream.id).encode()]
    assert [await running(client, lane) for lane in "ab"] == [0, 0]


async def test_a_restored_stream_holds_the_slot_that_it_had(client: Client) -> None:
    made = limited(a=TargetLimits(concurrent_streams=1))
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    fields = {**await stream.state(), "lane": "a"}
    await client.flushall()
    reply = await run_script(client, made.restore(holder, some(1, 2), fields=fields, body_hash="ff"))
    assert reply.code is Code.OK
    assert (await stream.renew(holder, "a"))[1] is Held.OK
    assert await running(client, "a") == 1
    assert (await stream.finish(holder, 3, [DONE])).code is Code.OK
    assert await running(client, "a") == 0


async def test_small_requests_do_not_overtake_a_large_one_that_waits_for_tokens(client: Client) -> None:
    limits = TargetLimits(tokens_per_minute=100)
    made = limited(a=limits)
    stream, holder = await claimed(client, made, provider="a", expected_tokens=60)
    large, small, later = [
        await Stream(client, key=False).create(provider="a", expected_tokens=tokens) for tokens in (80, 10, 10)
    ]
    for turn, parked in enumerate((large, small, later)):
        await client.hset(of_key(parked.id), "turn", str(turn))  # type: ignore[misc]
        assert isinstance(await run_script(client, made.take(parked.id, "w1.x")), Parked)
    assert await run_script(client, made.desk.unpark("a", limits)) == []
    assert await slot(client, made, holder, "a") == "a"
    await stream.finish(holder, 1, [DONE])
    assert await run_script(client, made.desk.unpark("a", limits)) == [large.id, small.id, later.id]
    for parked in (large, small, later):
        assert isinstance(await run_script(client, made.take(parked.id, "w1.x")), Taken)
