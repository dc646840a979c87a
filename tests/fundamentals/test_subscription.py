"""A subscription delivers a stream to one client from any cursor: first from the log, then live, without gap or
duplicate, up to an end that reports how the stream ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.dialects.native import Native
from gateway.dialects.openai_chat.stream import ChatCompletionChunks
from gateway.live.hub import Hub
from gateway.live.subscription import Drained, Subscription
from shared.broker.client import Client
from shared.protocol.ids import START, EventId
from tests.broker import Broker
from tests.fundamentals.live import WrittenStream, hub_at


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("live"))
    await broker.start()
    yield broker
    broker.kill()


@pytest.fixture
async def hub_and_client(broker: Broker) -> AsyncIterator[tuple[Hub, Client]]:
    async with hub_at(broker.url) as both:
        yield both


@pytest.fixture
def hub(hub_and_client: tuple[Hub, Client]) -> Hub:
    return hub_and_client[0]


@pytest.fixture
async def stream(hub_and_client: tuple[Hub, Client]) -> WrittenStream:
    """A running stream with `start` and two tokens: events 1 to 3."""
    stream = WrittenStream(hub_and_client[1])
    await stream.create()
    await stream.begin()
    await stream.write("one", "two")
    return stream


async def subscribe(hub: Hub, stream: WrittenStream, cursor: EventId = START) -> Subscription:
    return Subscription(hub, stream.id, cursor, await stream.log_page(cursor), Native(stream.id))


def parsed(chunk: bytes) -> list[dict[str, str]]:
    """The fields of each frame."""
    return [
        dict(line.split(": ", 1) for line in frame.split("\n")) for frame in chunk.decode().split("\n\n") if frame
    ]


def seqs(chunks: list[bytes]) -> list[int]:
    return [int(frame["id"].split("-")[1]) for chunk in chunks for frame in parsed(chunk)]


def data_of(frame: dict[str, str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(frame["data"])
    return data


async def collect(subscription: Subscription) -> list[bytes]:
    async with asyncio.timeout(60):
        return [chunk async for chunk in subscription.chunks()]


async def test_events_from_the_log_and_live_events_come_once_and_in_order(hub: Hub, stream: WrittenStream) -> None:
    received = []
    async with asyncio.timeout(60):
        async for chunk in (await subscribe(hub, stream)).chunks():
            received.append(chunk)
            if len(received) == 1:
                await stream.write("three", "four")
            elif seqs(received)[-1] == 5:
                await stream.end()
    assert seqs(received) == [1, 2, 3, 4, 5, 6]
    assert parsed(received[-1])[-1]["event"] == "done"


async def test_a_cursor_resumes_after_itself(hub: Hub, stream: WrittenStream) -> None:
    await stream.end()
    assert seqs(await collect(await subscribe(hub, stream, EventId(stream.epoch, 2)))) == [3, 4]


@pytest.mark.parametrize("offset", [-1, 1])
async def test_a_cursor_of_another_epoch_gets_everything_with_a_reset(
    hub: Hub, stream: WrittenStream, offset: int
) -> None:
    await stream.end()
    chunks = await collect(await subscribe(hub, stream, EventId(stream.epoch + offset, 3)))
    assert seqs(chunks) == [1, 2, 3, 4]
    assert data_of(parsed(chunks[0])[0])["reset"] is True


async def test_a_cursor_beyond_the_end_of_an_ended_stream_gets_everything_with_a_reset(
    hub: Hub, stream: WrittenStream
) -> None:
    await stream.end()
    chunks = await collect(await subscribe(hub, stream, EventId(stream.epoch, 99)))
    assert seqs(chunks) == [1, 2, 3, 4]
    assert data_of(parsed(chunks[0])[0])["reset"] is True


async def test_the_cursor_moves_when_the_next_chunk_is_requested(hub: Hub, stream: WrittenStream) -> None:
    subscription = await subscribe(hub, stream)
    chunks = subscription.chunks()
    async with asyncio.timeout(60):
        assert seqs([await anext(chunks)]) == [1, 2, 3]
        assert subscription.cursor == START
        await stream.end()
        assert seqs([await anext(chunks)]) == [4]
    assert subscription.cursor == EventId(stream.epoch, 3)
    await chunks.aclose()


async def test_a_stream_that_waits_begins_with_its_queue_position(hub_and_client: tuple[Hub, Client]) -> None:
    hub, client = hub_and_client
    stream = WrittenStream(client)
    await stream.create()
    subscription = Subscription(hub, stream.id, START, await stream.log_page(), Native(stream.id), 3)
    chunks = subscription.chunks()
    async with asyncio.timeout(60):
        (queued,) = parsed(await anext(chunks))
        assert (queued["event"], data_of(queued)["position"]) == ("queued", 3)
        assert "id" not in queued
        await stream.begin()
        assert seqs([await anext(chunks)]) == [1]
    await chunks.aclose()


async def test_two_readers_of_one_stream_share_a_feed(hub: Hub, stream: WrittenStream) -> None:
    fast, slow = (await subscribe(hub, stream)), (await subscribe(hub, stream, EventId(stream.epoch, 2)))
    both = [asyncio.create_task(collect(reader)) for reader in (fast, slow)]
    async with asyncio.timeout(60):
        while hub.load != (1, 2):
            await asyncio.sleep(0.01)
        await stream.write("three")
        await stream.end()
        assert [seqs(chunks) for chunks in await asyncio.gather(*both)] == [[1, 2, 3, 4, 5], [3, 4, 5]]
    assert hub.load == (0, 0)


async def test_a_drain_ends_a_resumable_subscription_without_done(hub: Hub, stream: WrittenStream) -> None:
    chunks = (await subscribe(hub, stream)).chunks()
    async with asyncio.timeout(60):
        assert seqs([await anext(chunks)]) == [1, 2, 3]
        hub.drain()
        with pytest.raises(Drained):
            await anext(chunks)


async def test_a_drain_lets_a_client_that_cannot_resume_read_to_the_end(hub: Hub, stream: WrittenStream) -> None:
    renderer = ChatCompletionChunks(stream.id, include_usage=False)
    subscription = Subscription(hub, stream.id, START, await stream.log_page(), renderer)
    chunks = subscription.chunks()
    async with asyncio.timeout(60):
        received = [await anext(chunks)]
        hub.drain()
        await stream.end()
        received += [chunk async for chunk in chunks]
    assert received[-1].endswith(b"data: [DONE]\n\n")


async def test_a_deleted_stream_ends_as_cancelled(hub: Hub, stream: WrittenStream) -> None:
    chunks = (await subscribe(hub, stream)).chunks()
    async with asyncio.timeout(60):
        await anext(chunks)
        await stream.delete()
        received = [chunk async for chunk in chunks]
    last = parsed(received[-1])[-1]
    assert (last["event"], data_of(last)["finish_reason"]) == ("done", "cancelled")


async def test_a_stream_that_is_not_restored_ends_as_lost_after_a_delay(
    hub_and_client: tuple[Hub, Client], stream: WrittenStream
) -> None:
    hub, client = hub_and_client
    hub.lost_after_s = 1.0
    chunks = (await subscribe(hub, stream)).chunks()
    async with asyncio.timeout(60):
        await anext(chunks)
        await client.flushall()
        began = asyncio.get_running_loop().time()
        frames = [frame async for chunk in chunks for frame in parsed(chunk)]
    assert asyncio.get_running_loop().time() - began >= 1.0
    assert [frame["event"] for frame in frames] == ["error", "done"]
    assert data_of(frames[0])["code"] == "stream_lost"
    assert not any("id" in frame for frame in frames)  # the client's cursor stays at a real event
