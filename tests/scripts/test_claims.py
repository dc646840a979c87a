"""Claim, release and renew."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.replies import (
    Claimed,
    Code,
    Refused,
)
from shared.protocol.ids import EventId
from tests.scripts.stream import (
    DONE,
    LATE_MS,
    LEASE_MS,
    SCRIPTS,
    STATE,
    TAIL,
    TOKEN,
    Stream,
    be_well,
    event,
    lives_as_one,
    now_ms,
    some,
)


# --- claim and release
async def test_claim_of_missing_and_ended_streams(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.finish(holder, 1, [DONE])
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.CLOSED
    await client.delete(stream.keys[STATE])
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.MISSING


async def test_claim(client: Client) -> None:
    stream = await Stream(client).create()
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable, claimed.signal) == (1, 0, "")
    assert claimed.fields["request"] == b'{"messages":[]}'
    assert claimed.fields["epoch"] == str(claimed.epoch).encode()
    state = await stream.state()
    assert (state["status"], state["holder"]) == ("running", TOKEN)
    assert now_ms() + LEASE_MS - LATE_MS < int(state["lease_until"]) <= now_ms() + LEASE_MS + 1000
    assert await stream.next_look() == int(state["lease_until"])
    await be_well(stream)
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.HELD
    assert await stream.state() == state


async def test_a_claim_may_be_repeated(client: Client) -> None:
    """A connection that broke before the answer came: the second one must not be refused for the first."""
    stream = await Stream(client).create()
    first = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    before = await stream.everything()
    assert await run_script(client, SCRIPTS.claim(stream.id, TOKEN)) == first
    assert await stream.everything() == before


async def test_a_claim_writes_no_event(client: Client) -> None:
    """The older epoch stays readable until the first append of the new one, which empties the log."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    await stream.set(lease_until=0)
    await be_well(stream)
    claimed = await run_script(client, SCRIPTS.claim(stream.id, "w2.x"))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable) == (2, 2)
    page = await stream.page(EventId(old.epoch, 1))
    assert (page.epoch, page.first, page.events) == (old.epoch, 2, [event(2, "old")])
    new = stream.holder(claimed.epoch, "w2.x")
    assert (await stream.append(new, 1, some(1, 1, "new"))).code is Code.OK
    page = await stream.page(EventId(old.epoch, 1))
    assert (page.epoch, page.first, page.events) == (new.epoch, 1, [event(1, "new")])
    assert [at for at, _ in await stream.tail()] == [f"{new.epoch}-1"]


@pytest.mark.parametrize(
    ("age_ms", "state_epoch", "tail_top", "expected"),
    [
        (50_000, 3, None, range(50_000, 50_000 + LATE_MS)),  # the clock has moved on
        (-99_000, 3, None, range(4, 5)),  # the clock went back, Redis remembers
        (-99_000, 3, "77-2", range(78, 79)),  # Redis lost the state, the tail remembers
        (50_000, 3, "60123-1", range(60_124, 60_125)),
        (50_000, 70_000, "60123-1", range(70_001, 70_002)),
    ],
)
async def test_an_epoch_never_repeats(
    client: Client, age_ms: int, state_epoch: int, tail_top: str | None, expected: range
) -> None:
    stream = await Stream(client).create()
    await stream.set(epoch=state_epoch, created=now_ms() - age_ms)
    if tail_top:
        await client.xadd(stream.keys[TAIL], {"e": "x"}, id=tail_top)
        await client.expire(stream.keys[TAIL], 60)
    assert (await stream.claim()).epoch in expected


@pytest.mark.parametrize(
    "pulse", [None, {"at": 0}, {"trouble": 1}, {"run_id": "another"}], ids=["none", "stopped", "trouble", "replaced"]
)
async def test_no_stream_is_taken_over_after_an_outage(client: Client, pulse: dict[str, int | str] | None) -> None:
    """Every holder gets one more lease; a stream that was never held, or was handed over, can be claimed. Meanwhile
    no reader is told that the worker is lost."""
    stream = await Stream(client).create()
    waiting = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.set(lease_until=0)
    if pulse is not None:
        await be_well(stream, **{name: now_ms() if value == 1 else value for name, value in pulse.items()})
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.HELD
    assert (await stream.state())["epoch"] == str(holder.epoch)
    position = await stream.acknowledge()
    assert position is not None
    assert position.awaited == ""
    await waiting.claim()
    await run_script(client, SCRIPTS.release(holder))
    assert isinstance(await run_script(client, SCRIPTS.claim(stream.id, "w2.x")), Claimed)


async def test_the_grace_after_an_outage_is_one_lease(client: Client) -> None:
    stream = await Stream(client).create()
    await stream.claim()
    await stream.set(lease_until=0)
    await be_well(stream, trouble=now_ms() - LEASE_MS - 1000)
    position = await stream.acknowledge()
    assert position is not None
    assert position.awaited == "worker_lost"
    assert isinstance(await run_script(client, SCRIPTS.claim(stream.id, "w2.x")), Claimed)


async def test_release(client: Client) -> None:
    """The next one takes the stream at once, and it is no attempt that failed."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    reply = await run_script(client, SCRIPTS.release(holder))
    assert (reply.code, reply.last_seq) == (Code.OK, 2)
    assert (await stream.next_look() or 0) <= now_ms() + 1000
    for late in (await stream.append(holder, 3, some(3, 3)), await run_script(client, SCRIPTS.renew(holder))):
        assert late.code is Code.SUPERSEDED
    claimed = await run_script(client, SCRIPTS.claim(stream.id, "w2.x"))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable) == (1, 2)
    assert claimed.epoch > holder.epoch
    assert (await run_script(client, SCRIPTS.release(holder))).code is Code.SUPERSEDED
    again = await stream.take_over("w3.x")
    assert (await stream.state())["attempt"] == "2"
    assert again.epoch > claimed.epoch


# --- renew
async def test_renew(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.set(lease_until=0)
    assert (await run_script(client, SCRIPTS.renew(holder))).last_seq == 2
    state = await stream.state()
    assert now_ms() + LEASE_MS - LATE_MS < int(state["lease_until"])
    assert await stream.next_look() == int(state["lease_until"])
    old = await stream.lives()
    await run_script(client, SCRIPTS.renew(holder))
    assert await stream.lives() == old  # not each time
    await stream.set(expires=old[STATE] - 61_000)
    await run_script(client, SCRIPTS.renew(holder))
    await lives_as_one(stream)
    assert (await stream.lives())[STATE] > old[STATE]


async def test_renew_without_the_lease(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    before = await stream.everything()
    assert (await run_script(client, SCRIPTS.renew(old))).code is Code.SUPERSEDED
    assert (await run_script(client, SCRIPTS.renew(stream.holder(new.epoch + 1)))).code is Code.BEHIND
    assert await stream.everything() == before
    assert (await run_script(client, SCRIPTS.renew(Stream(client).holder(1)))).code is Code.MISSING
