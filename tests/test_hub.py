"""The hub's one read of all tails, against a real Redis."""

import asyncio
from pathlib import Path

from gateway.dialects.native import Native
from gateway.live.hub import Hub
from gateway.live.subscription import Subscription
from shared.broker.client import connect
from shared.broker.keys import stream_keys
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.replies import LogPage
from shared.broker.scripts import StreamScripts
from shared.protocol.ids import START, EventId, new_stream_id
from shared.protocol.lifecycle import Status
from shared.settings import Settings
from tests.broker import Broker

PAGE = LogPage(Status.RUNNING, "p", 1, 1, 1, [])


async def test_a_feed_that_its_readers_left_is_not_read_beside_the_new_one(tmp_path: Path) -> None:
    """Two feeds of one stream in one XREAD make it invalid, and with it the live reading of all others."""
    broker = Broker(tmp_path / "broker")
    await broker.start()
    settings = Settings(redis_url=broker.url)
    client, reading, telling = connect(broker.url), PipelineConnection(broker.url), PipelineConnection(broker.url)
    hub = Hub(client, reading, telling, StreamScripts(settings), settings, "g1")
    following = asyncio.create_task(hub.follow_tails())
    try:
        stream_id = new_stream_id()
        with hub.join(Subscription(hub, stream_id, START, PAGE, Native(stream_id))) as left:
            hub.caught_up(left, EventId(1, 1))
        with hub.join(Subscription(hub, stream_id, START, PAGE, Native(stream_id))) as feed:
            hub.caught_up(feed, EventId(1, 1))
            hub._mark_unread(left)  # as after an XREAD that failed while its reader left
            await client.xadd(
                stream_keys(stream_id)[2], {"e": b'token {"token":"x","token_index":0,"n":1}'}, id="1-2"
            )
            version = feed.version
            hub._mark_unread(feed)
            async with asyncio.timeout(10):
                while feed.position != EventId(1, 2):
                    await feed.changed_since(version)
                    version = feed.version
    finally:
        following.cancel()
        for line in (reading, telling):
            await line.aclose()
        await client.aclose()
        broker.kill()
