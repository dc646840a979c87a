"""The hub reads all tails with one command, so one bad tail must not stop the others."""

import asyncio
import logging
from pathlib import Path

import pytest

from gateway.dialects.native import Native
from gateway.live.subscription import Subscription
from shared.broker.keys import stream_keys
from shared.broker.replies import LogPage
from shared.protocol.ids import START, EventId, new_stream_id
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import NO_LINEAGE
from tests.broker import Broker
from tests.fundamentals.live import hub_at

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
