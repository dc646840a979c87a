"""Append and read with a route for each bucket, on a cluster of one node, which refuses commands over two slots."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gateway.dialects.native import Native
from gateway.live.subscription import Subscription
from shared.broker.client import Client, run_script, run_scripts
from shared.broker.keys import gateway_channel, state_key, tail_key
from shared.broker.replies import Code, LogPage, WriteReply
from shared.broker.routes import BY_BUCKET
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol import events
from shared.protocol.ids import START, new_stream_id
from shared.settings import Settings
from tests.broker_cluster import Cluster
from tests.fundamentals.live import hub_at

EPOCH = 7
SCRIPTS = StreamScripts(Settings(), BY_BUCKET)


@pytest.fixture(scope="module")
async def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), masters=1)
    await cluster.start()
    yield cluster.nodes[0].url
    await cluster.stop()


async def claimed(client: Client) -> Holder:
    """A stream as a claim leaves it; those of creation and claim are not yet scripts of one slot."""
    holder = Holder(new_stream_id(), EPOCH, "w1.token", None)
    now = round(time.time() * 1000)
    state: dict[str, str | int] = {"status": "running", "epoch": EPOCH, "holder": holder.token, "log_epoch": 0}
    state |= {"lead": 0, "on_disconnect": "continue", "live_until": 0, "polled_until": 0, "created": now}
    state |= {"grace_ms": 0, "principal": "p", "lease_until": now + 600_000, "expires": now + 600_000}
    await client.hset(state_key(holder.stream_id), mapping=state)  # type: ignore[misc]
    await client.pexpireat(state_key(holder.stream_id), now + 600_000)
    return holder


def token(seq: int) -> bytes:
    return events.encode(events.Start("s", "m", "fake", 1) if seq == 1 else events.Token(f"word {seq}", seq))


async def append(client: Client, holders: list[Holder], seq: int) -> None:
    for reply in await run_scripts(client, [SCRIPTS.append(holder, seq, [token(seq)]) for holder in holders]):
        assert isinstance(reply, WriteReply)
        assert (reply.code, reply.last_seq) == (Code.OK, seq)


async def take(chunks: AsyncIterator[bytes], word: str) -> None:
    while word.encode() not in await anext(chunks):
        pass


async def test_streams_of_many_slots_are_appended_and_read(cluster_url: str) -> None:
    """Events come in messages. One of them is lost, so the tails of many slots have to be read."""
    async with hub_at(cluster_url, routes=BY_BUCKET) as (hub, client), asyncio.timeout(60):
        holders = [await claimed(client) for _ in range(12)]
        ids = [holder.stream_id for holder in holders]
        await append(client, holders, 1)
        pages = [await run_script(client, SCRIPTS.read(stream_id, START)) for stream_id in ids]
        readers = [
            Subscription(hub, stream_id, START, page, Native(stream_id)).chunks()
            for stream_id, page in zip(ids, pages, strict=True)
            if isinstance(page, LogPage)
        ]
        await asyncio.gather(*(anext(reader) for reader in readers))
        coming = [asyncio.ensure_future(take(reader, "word 2")) for reader in readers]
        for stream_id in ids:
            while not (gateway := await client.hget(state_key(stream_id), "gateways")):  # type: ignore[misc]
                await asyncio.sleep(0.005)
            assert gateway_channel(gateway.decode()) == gateway_channel("g1", BY_BUCKET.of(stream_id))
        await append(client, holders, 2)
        await asyncio.gather(*coming)
        seq, reads = 2, -1
        while reads != await tails_read(client):  # a comparison, or a first subscription, may read at any time
            seq, reads = seq + 1, await tails_read(client)
            coming = [asyncio.ensure_future(take(reader, f"word {seq}")) for reader in readers]
            await append(client, holders, seq)
            await asyncio.gather(*coming)
        coming = [asyncio.ensure_future(take(reader, f"word {seq + 2}")) for reader in readers]
        for stream_id in ids:
            await client.xadd(tail_key(stream_id), {"e": token(seq + 1)}, id=f"{EPOCH}-{seq + 1}")
        await append(client, holders, seq + 2)
        await asyncio.gather(*coming)
        assert await tails_read(client) > reads


async def tails_read(client: Client) -> int:
    return int((await client.info("commandstats")).get("cmdstat_xread", {"calls": 0})["calls"])
