"""Renewals and acknowledgements of many streams in one call: each stream has its own reply."""

import pytest

from shared.broker.client import Client, run_scripts
from shared.broker.replies import Code, LogPosition, WriteReply
from shared.broker.routes import BY_BUCKET
from shared.broker.scripts import Holder, StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.ids import START, EventId
from shared.protocol.lifecycle import Status
from tests.scripts.stream import LEASE_MS, ON_CLUSTER, ROUTE, SCRIPTS, SETTINGS, STATE, Stream, heard, now_ms, some
from tests.scripts.test_append_together import calls_to_redis


async def held(client: Client, *, key: bool = False) -> tuple[Stream, Holder]:
    stream = await Stream(client, key=key).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    return stream, holder


async def test_leases_are_renewed_in_one_call(client: Client) -> None:
    (one, first), (broken, second), (lost, third), (other, fourth) = [await held(client) for _ in range(4)]
    with_key, fifth = await held(client, key=True)
    await run_scripts(client, [SCRIPTS.renew(first)])  # Redis has the script
    for stream in (one, other, with_key):
        await stream.set(lease_until=1)
    await client.set(broken.keys[STATE], "no hash", px=60_000)
    await client.delete(lost.keys[STATE])
    before = await calls_to_redis(client)
    replies = await run_scripts(client, [SCRIPTS.renew(holder) for holder in (first, second, third, fourth, fifth)])
    assert await calls_to_redis(client) == before + 1
    assert isinstance(replies[1], BrokerUnavailable)
    codes = [reply.code for reply in replies if isinstance(reply, WriteReply)]
    assert codes == [Code.OK, Code.MISSING, Code.OK, Code.OK]
    for stream in (one, other, with_key):
        assert int((await stream.state())["lease_until"]) > now_ms() + LEASE_MS / 2
        assert await stream.next_look() == int((await stream.state())["lease_until"])


async def test_readers_are_acknowledged_in_one_call(client: Client) -> None:
    """Another gateway's leave is among them. The writer of the stream with a full window is notified."""
    (one, first), (broken, _), (other, second) = [await held(client) for _ in range(3)]
    await other.acknowledge(gateway="g2")
    await one.set(full=1)
    await client.set(broken.keys[STATE], "no hash", px=60_000)
    lead = EventId(first.epoch, 2)
    leads = ((one, lead), (broken, START), (other, START))
    calls = [SCRIPTS.acknowledge(stream.id, "g1", at) for stream, at in leads]
    calls += [SCRIPTS.acknowledge(Stream(client).id, "g1", START), SCRIPTS.leave(other.id, "g2", START)]
    before = await calls_to_redis(client)
    async with heard(client, "w1") as words:
        replies = await run_scripts(client, calls)
    assert await calls_to_redis(client) == before + 1
    assert replies[0] == LogPosition(Status.RUNNING, first.epoch, 2, "more")
    assert isinstance(replies[1], BrokerUnavailable)
    assert replies[2:] == [
        *[LogPosition(Status.RUNNING, second.epoch, 2, "more"), None],
        LogPosition(Status.RUNNING, second.epoch, 2, "more"),
    ]
    assert words == [f"room {one.id}"]
    assert ((await one.state())["lead"], (await other.state())["lead"]) == ("2", "0")
    assert ((await one.state())["gateways"], (await other.state())["gateways"]) == (f"g1{ROUTE}", f"g1{ROUTE}")


@pytest.mark.skipif(ON_CLUSTER, reason="there all streams of these tests are in one bucket")
@pytest.mark.parametrize("script", ["renew", "acknowledge"])
async def test_calls_of_different_routes_are_separate(client: Client, script: str) -> None:
    by_bucket = StreamScripts(SETTINGS, BY_BUCKET)
    (one, first), (other, second) = [await held(client) for _ in range(2)]
    while one.id[:2] == other.id[:2]:
        other, second = await held(client)
    await run_scripts(client, [SCRIPTS.renew(first), SCRIPTS.acknowledge(one.id, "g1", START)])
    before = await calls_to_redis(client)
    if script == "renew":
        await run_scripts(client, [by_bucket.renew(holder) for holder in (first, second)])
    else:
        await run_scripts(client, [by_bucket.acknowledge(stream.id, "g1", START) for stream in (one, other)])
    assert await calls_to_redis(client) == before + 2


async def test_a_call_has_a_limit(client: Client) -> None:
    """Many renewals in one call would hold up Redis for longer than an append may wait."""
    _, holder = await held(client)
    await run_scripts(client, [SCRIPTS.renew(holder)])
    before = await calls_to_redis(client)
    await run_scripts(client, [SCRIPTS.renew(holder)] * 65)
    assert await calls_to_redis(client) == before + 2
