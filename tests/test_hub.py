"""The hub gets events in messages, and reads with one command what no message brought."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.dialects.native import Native
from gateway.live.hub import Hub
from gateway.live.subscription import Subscription
from shared.broker.client import Client
from shared.broker.keys import gateway_channel, state_key, stream_keys
from shared.broker.replies import LogPage
from shared.protocol.ids import START, EventId, new_stream_id
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE
from shared.settings import Settings
from tests.broker import Broker
from tests.fundamentals.live import WrittenStream, hub_at

PAGE = LogPage(Status.RUNNING, "p", 1, NO_LINEAGE, 1, 1, [])
TOKEN = b'token {"token":"x","token_index":0,"n":1}'


async def test_a_feed_without_readers_is_not_read_together_with_its_successor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two feeds of one stream in one XREAD would make it invalid, and stop the live reading of all other streams."""
    caplog.set_level(logging.DEBUG, "gateway.live.hub")
    broker = Broker(tmp_path / "broker")
    await broker.start()
    try:
        async with hub_at(broker.url) as (hub, client), asyncio.timeout(20):
            stream_id = new_stream_id()
            tail = stream_keys(stream_id)[2]
            await client.set(tail, "not a tail")  # an XREAD fails, and the hub tries again a little later
            with hub.join(Subscription(hub, stream_id, START, PAGE, Native(stream_id))) as left:
                hub.caught_up(left, EventId(1, 1))
                while "tails unavailable" not in caplog.text:
                    await asyncio.sleep(0.005)
            await client.delete(tail)
            await client.xadd(tail, {"e": TOKEN}, id="1-2")
            with hub.join(Subscription(hub, stream_id, START, PAGE, Native(stream_id))) as feed:
                hub.caught_up(feed, EventId(1, 1))
                while feed.position != EventId(1, 2):
                    await feed.changed_since(feed.version)
    finally:
        broker.kill()


@pytest.fixture(scope="module")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    broker = Broker(tmp_path_factory.mktemp("hub"))
    await broker.start()
    yield broker.url
    broker.kill()


async def read_by(hub: Hub, stream: WrittenStream) -> tuple[Subscription, AsyncIterator[bytes]]:
    """Return a subscription that has the stream's first event, and whatever it delivers after it."""
    subscription = Subscription(hub, stream.id, START, await stream.log_page(), Native(stream.id))
    chunks = subscription.chunks()
    assert b"event: start" in await anext(chunks)
    return subscription, chunks


async def tails_read(client: Client) -> int:
    return int((await client.info("commandstats")).get("cmdstat_xread", {"calls": 0})["calls"])


async def until_subscribed(client: Client) -> None:
    """Wait until the hub gets messages. When it begins to, it reads the tails of all feeds that it has."""
    command = ("PUBSUB", "SHARDNUMSUB", gateway_channel("g1"))
    while not (await client.execute_command(*command))[1]:  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.005)


async def acknowledged(hub: Hub, client: Client, stream: WrittenStream, seq: int) -> None:
    """Make a round of acknowledgements once the hub has the event of this number. In a round that overtakes a
    message, it would read the tail."""
    while (feed := hub._feeds.get(stream.id)) is None or feed.position is None or feed.position.seq < seq:
        await asyncio.sleep(0.005)
    await hub.leases.report(client, [stream.id])


async def until_acknowledged(client: Client, stream: WrittenStream) -> None:
    """Wait until scripts notify the hub."""
    while not await client.hget(state_key(stream.id), "gateways"):  # type: ignore[misc]
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("key", ["", "ab" * 32])
async def test_what_a_message_brought_is_not_read(redis_url: str, key: str) -> None:
    settings = Settings.model_validate({"redis_url": redis_url, "content_keys": key})
    async with hub_at(redis_url, settings, keeps_leases=False) as (hub, client), asyncio.timeout(60):
        await until_subscribed(client)
        stream = WrittenStream(client, settings)
        await stream.create()
        await stream.begin()
        _, chunks = await read_by(hub, stream)
        coming = asyncio.ensure_future(anext(chunks))
        before = await tails_read(client)
        await acknowledged(hub, client, stream, 1)
        await stream.write("one")
        assert b'"token":"one"' in await coming
        for word in ("two", "three"):
            coming = asyncio.ensure_future(anext(chunks))
            await stream.write(word)
            assert f'"token":"{word}"'.encode() in await coming
        await stream.end()
        assert b"event: done" in await anext(chunks)
        assert await tails_read(client) == before


async def test_an_answer_followed_from_its_creation_is_not_read(redis_url: str) -> None:
    async with hub_at(redis_url, keeps_leases=False) as (hub, client), asyncio.timeout(60):
        await until_subscribed(client)
        before = await tails_read(client)
        stream = WrittenStream(client)
        await stream.create()
        subscription = Subscription(hub, stream.id, START, await stream.log_page(), Native(stream.id))
        delivered = asyncio.ensure_future(all_of(subscription))
        await acknowledged(hub, client, stream, 0)
        await stream.begin()
        await acknowledged(hub, client, stream, 1)
        await stream.write("one")
        await stream.end()
        assert b'"token":"one"' in await delivered
        assert await tails_read(client) == before
        hub.leases.compare_soon()
        await hub.leases.report(client, [stream.id])
        assert await client.zcard(stream_keys(stream.id)[3]) == 0, "the last reader leaves with the next comparison"


async def test_events_before_the_first_acknowledgement_are_read(redis_url: str) -> None:
    async with hub_at(redis_url) as (hub, client), asyncio.timeout(20):
        stream = WrittenStream(client)
        await stream.create()
        page = await stream.log_page()
        await stream.begin()
        await stream.write("early")
        delivered = asyncio.ensure_future(all_of(Subscription(hub, stream.id, START, page, Native(stream.id))))
        await until_acknowledged(client, stream)
        await stream.write("later")
        await stream.end()
        received = await delivered
        assert [received.count(word) for word in (b'"early"', b'"later"', b"event: done")] == [1, 1, 1]


async def all_of(subscription: Subscription) -> bytes:
    return b"".join([chunk async for chunk in subscription.chunks()])


async def test_the_events_of_a_lost_message_are_read_with_the_next(redis_url: str) -> None:
    async with hub_at(redis_url) as (hub, client), asyncio.timeout(20):
        stream = WrittenStream(client)
        await stream.create()
        await stream.begin()
        subscription, chunks = await read_by(hub, stream)
        coming = asyncio.ensure_future(anext(chunks))
        await until_acknowledged(client, stream)
        await client.hset(state_key(stream.id), "gateways", "another")  # type: ignore[misc]
        await stream.write("lost")
        await client.hset(state_key(stream.id), "gateways", "g1")  # type: ignore[misc]
        await stream.write("heard")
        received = await coming
        while subscription.cursor.seq < 3 and b"heard" not in received:
            received += await anext(chunks)
        assert [word for word in (b"lost", b"heard") if received.count(word) == 1] == [b"lost", b"heard"]
        assert received.index(b"lost") < received.index(b"heard")


async def test_a_message_that_cannot_be_read_is_a_hint_for_all(redis_url: str) -> None:
    async with hub_at(redis_url) as (hub, client), asyncio.timeout(20):
        stream = WrittenStream(client)
        await stream.create()
        await stream.begin()
        _, chunks = await read_by(hub, stream)
        coming = asyncio.ensure_future(anext(chunks))
        await until_acknowledged(client, stream)
        await client.hset(state_key(stream.id), "gateways", "another")  # type: ignore[misc]
        await stream.write("unheard")
        await client.execute_command("SPUBLISH", gateway_channel("g1"), b"\xff no line")  # type: ignore[no-untyped-call]
        assert b"unheard" in await coming


async def test_a_stream_that_moves_is_not_acknowledged_twice_in_a_period(redis_url: str) -> None:
    """A silent one is compared at every period, and a moving one again as soon as it is silent."""
    settings = Settings(redis_url=redis_url, window=4)
    async with hub_at(redis_url, settings, keeps_leases=False) as (hub, client), asyncio.timeout(40):
        streams = [WrittenStream(client, settings) for _ in range(2)]
        ids = [stream.id for stream in streams]
        coming = []
        for stream in streams:
            await stream.create()
            await stream.begin()
            coming.append((await read_by(hub, stream))[1])
        tasks = [asyncio.ensure_future(anext(chunks)) for chunks in coming]
        await asyncio.sleep(0)
        await hub.leases.report(client, ids)
        hub.leases.compare_soon()
        await hub.leases.report(client, ids)
        await streams[0].write("one", "two")
        assert b"two" in await tasks[0]
        tasks[0] = asyncio.ensure_future(anext(coming[0]))
        await asyncio.sleep(0)
        await hub.leases.report(client, ids)
        for expected in ({streams[1].id}, {stream.id for stream in streams}):
            for stream in streams:
                await client.delete(stream_keys(stream.id)[3])
            hub.leases.compare_soon()
            await hub.leases.report(client, ids)
            compared = {stream.id for stream in streams if await client.exists(stream_keys(stream.id)[3])}
            assert compared == expected
        for task in tasks:
            task.cancel()
