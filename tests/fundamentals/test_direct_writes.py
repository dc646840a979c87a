"""Readers that have everything get new events written to their sockets without waking. However a write ends, each
reader gets every event once and in order."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from gateway.dialects.native import Native
from gateway.dialects.openai_chat.stream import ChatCompletionChunks
from gateway.edge.body_writer import BodyWriter
from gateway.live.hub import Hub
from gateway.live.renderer import Renderer
from gateway.live.subscription import Subscription
from shared.broker.client import Client
from tests.broker import Broker
from tests.fundamentals.live import WrittenStream, hub_at
from tests.fundamentals.served import Server, served
from tests.raw_client import connected
from tests.sse_client import Broken, Frame, SseConnection, text_of

SMALL_BUFFER = 4096
LONG = "x" * 8000
#: More than a connection's buffers hold, the transport's and those of two sockets, and less than the window.
MANY = 240


@pytest.fixture
async def hub_and_client(redis: Broker) -> AsyncIterator[tuple[Hub, Client]]:
    async with hub_at(redis.url) as both:
        yield both


@pytest.fixture
def hub(hub_and_client: tuple[Hub, Client]) -> Hub:
    return hub_and_client[0]


@pytest.fixture
async def stream(hub_and_client: tuple[Hub, Client]) -> WrittenStream:
    """A running stream with `start`: event 1."""
    stream = WrittenStream(hub_and_client[1])
    await stream.create()
    await stream.begin()
    return stream


class Spy(BodyWriter):
    """Counts direct writes, and refuses some. ``refusals``: share of the writes, at random."""

    def __init__(self, inner: BodyWriter, refusals: float = 0) -> None:
        self._inner = inner
        self._refusals = refusals
        self._random = random.Random(7)
        self.written = 0
        self.refused = 0

    def write(self, piece: bytes) -> bool:
        is_written = self._random.random() >= self._refusals and self._inner.write(piece)
        self.written += is_written
        self.refused += not is_written
        return is_written


class Spies(list[Spy]):
    """The spies of all responses, in the order of their requests."""

    def __init__(self, refusals: float = 0) -> None:
        super().__init__()
        self._refusals = refusals

    def __call__(self, writer: BodyWriter) -> BodyWriter:
        self.append(Spy(writer, self._refusals))
        return self[-1]


def seqs(frames: list[Frame]) -> list[int]:
    return [int(frame.at.split("-")[1]) for frame in frames]


async def rest_of(connection: SseConnection) -> list[Frame]:
    async with asyncio.timeout(60):
        return await connection.rest()


async def write_all(server: Server, count: int, text: str = "x") -> None:
    """Write events 2 to ``count``, one by one, each once all readers that are up to date have the one before."""
    for number in range(2, count + 1):
        await server.stream.write(f"{number}:{text} ")
    await server.stream.end()


async def test_many_readers_get_the_same_bytes_without_waking(hub: Hub, stream: WrittenStream) -> None:
    spies = Spies()
    async with served(hub, stream, writer_of=spies) as server:
        readers = [await server.connect() for _ in range(50)]
        await server.caught_up(50, 1)
        await write_all(server, 40)
        received = await asyncio.gather(*map(rest_of, readers))
        assert [seqs(frames) for frames in received] == [list(range(1, 42))] * 50
        assert len({bytes(reader.raw) for reader in readers}) == 1
        assert min(spy.written for spy in spies) > 0


async def test_an_ended_stream_completes_the_body_after_direct_writes(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream) as server, connected(server.port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await connection.head())[1]["transfer-encoding"] == "chunked"
        await server.caught_up(1, 1)
        await write_all(server, 10)
        assert b"event: done" in await connection.until(b"\r\n0\r\n\r\n")
        # The connection serves the next request.
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await connection.head())[1]["connection"] == "close"
        assert (await connection.rest()).endswith(b"\r\n0\r\n\r\n")


async def test_a_head_request_gets_no_direct_write(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream) as server, connected(server.port) as connection:
        await connection.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await connection.head())[0] == 200
        await write_all(server, 3)
        assert await connection.rest() == b""


async def test_a_pipelined_request_is_answered_after_the_stream(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream) as server, connected(server.port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        await server.caught_up(1, 1)
        await connection.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await write_all(server, 10)
        body = await connection.until(b"\r\n0\r\n\r\n")
        assert body.count(b"event: token") == 9
        assert (await connection.head())[0] == 200
        assert await connection.rest() == b""


async def test_a_slow_reader_among_fast_ones_misses_and_repeats_nothing(hub: Hub, stream: WrittenStream) -> None:
    spies = Spies()
    async with served(hub, stream, writer_of=spies, send_buffer_bytes=SMALL_BUFFER) as server:
        slow = await server.connect(receive_buffer=SMALL_BUFFER)
        fast = [await server.connect() for _ in range(3)]
        await server.caught_up(4, 1)
        reading = [asyncio.create_task(rest_of(reader)) for reader in fast]
        await write_all(server, MANY, LONG)
        expected = list(range(1, MANY + 2))
        assert [seqs(frames) for frames in await asyncio.gather(*reading)] == [expected] * 3
        assert spies[0].refused > 0
        assert server.subscriptions[0].cursor.seq < MANY
        assert seqs(await rest_of(slow)) == expected


async def test_a_reader_that_pauses_is_written_to_again_once_it_has_caught_up(
    hub: Hub, stream: WrittenStream
) -> None:
    spies = Spies()
    async with served(hub, stream, writer_of=spies, send_buffer_bytes=SMALL_BUFFER) as server:
        reader = await server.connect(receive_buffer=SMALL_BUFFER)
        frames: list[Frame] = []
        seq = 1
        for _ in range(2):
            await server.caught_up(1, seq)
            before = spies[0].refused
            while spies[0].refused == before:  # the buffers fill up
                seq += 1
                await stream.write(LONG)
                await asyncio.sleep(0)
            frames += await reader.take(seq - len(frames))
        await server.caught_up(1, seq)
        written = spies[0].written
        await stream.write("last")
        frames += await reader.take(1)
        assert spies[0].written == written + 1
        await stream.end()
        assert seqs(frames + await rest_of(reader)) == list(range(1, seq + 3))


async def test_a_reader_that_stops_reading_is_cut_and_resumes(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream, send_buffer_bytes=SMALL_BUFFER, write_deadline_s=1) as server:
        reader = await server.connect(receive_buffer=SMALL_BUFFER)
        await server.caught_up(1, 1)
        await write_all(server, MANY, LONG)
        async with asyncio.timeout(60):
            while hub.load != (0, 0):
                await asyncio.sleep(0.01)
        with pytest.raises((Broken, OSError)):
            [frame async for frame in reader.frames()]
        reader.cut()
    shown = [frame_id for frame_id in ids_in(reader) if frame_id]
    assert 0 < len(shown) < MANY
    async with served(hub, stream) as patient:  # a pause of this process cuts no reader
        rest = await rest_of(await patient.connect(shown[-1]))
        assert [*map(seq_of, shown), *seqs(rest)] == list(range(1, MANY + 2))


def ids_in(connection: SseConnection) -> list[str]:
    """The ids of all whole frames received."""
    frames = bytes(connection.raw).split(b"\n\n")[:-1]
    return [line[4:].decode() for frame in frames for line in frame.split(b"\n") if line.startswith(b"id: ")]


def seq_of(event_id: str) -> int:
    return int(event_id.split("-")[1])


async def test_a_reader_that_is_cut_between_writes_resumes(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream) as server:
        seen: list[Frame] = []
        for last in range(10, 41, 10):
            reader = await server.connect(seen[-1].at if seen else "")
            while len(seen) < last:
                await stream.write("x")
                seen += await reader.take(1)
            reader.cut()
            await stream.write("on its way")
        await stream.end()
        seen += await rest_of(await server.connect(seen[-1].at))
        assert seqs(seen) == list(range(1, len(seen) + 1))
        assert seen[-1].event == "done"


@pytest.mark.parametrize("refusals", [0.02, 0.5, 1])
async def test_events_stay_in_order_however_many_writes_are_refused(
    hub: Hub, stream: WrittenStream, refusals: float
) -> None:
    spies = Spies(refusals)
    async with served(hub, stream, writer_of=spies) as server:
        readers = [asyncio.create_task(rest_of(await server.connect())) for _ in range(5)]
        await server.caught_up(5, 1)
        await write_all(server, 300)
        assert [seqs(frames) for frames in await asyncio.gather(*readers)] == [list(range(1, 302))] * 5
        assert sum(spy.refused for spy in spies) > 0


@pytest.mark.parametrize("refusals", [0, 0.5])
async def test_a_dialect_with_state_renders_each_event_once(hub: Hub, stream: WrittenStream, refusals: float) -> None:
    def renderer(stream_id: str) -> Renderer:
        return ChatCompletionChunks(stream_id, include_usage=False)

    spies = Spies(refusals)
    async with served(hub, stream, renderer, spies) as server, connected(server.port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await connection.head()
        await server.caught_up(1, 1)
        await write_all(server, 100)
        body = await connection.rest()
        contents = [b'"content":"%d:x "' % number for number in range(2, 101)]
        places = [body.find(content) for content in contents]
        assert places == sorted(places)
        assert -1 not in places
        assert [body.count(content) for content in contents] == [1] * 99
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert spies[0].written > 0


class Brittle(Native):
    """Renderer that fails at one event."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        Brittle.made += 1
        self._is_broken = Brittle.made == 2

    made = 0

    def render(self, batch: object) -> bytes:
        frames = super().render(batch)  # type: ignore[arg-type]
        if self._is_broken and b"poison" in frames:
            raise ValueError("this event cannot be rendered")
        return frames


async def test_an_event_that_one_reader_cannot_render_ends_this_reader_alone(hub: Hub, stream: WrittenStream) -> None:
    Brittle.made = 0
    async with served(hub, stream, Brittle) as server:
        readers = [await server.connect() for _ in range(3)]
        await server.caught_up(3, 1)
        await stream.write("good")
        await stream.write("poison")
        await stream.write("good again")
        await stream.end()
        with pytest.raises(Broken):
            await rest_of(readers[1])
        assert ids_in(readers[1])[-1].endswith("-2")
        for reader in (readers[0], readers[2]):
            assert seqs(await rest_of(reader)) == [1, 2, 3, 4, 5]


async def test_a_drain_cuts_readers_between_two_whole_events(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream) as server:
        readers = [await server.connect() for _ in range(5)]
        await server.caught_up(5, 1)
        for number in range(2, 20):
            await stream.write(f"{number}")
        await server.caught_up(5, 19)
        hub.drain()
        for reader in readers:
            with pytest.raises(Broken):
                await rest_of(reader)
            assert [seq_of(each) for each in ids_in(reader)] == list(range(1, 20))
            assert bytes(reader.raw).rsplit(b"\n\n", 1)[1].startswith(b"retry: ")


async def test_heartbeats_come_between_direct_writes(hub: Hub, stream: WrittenStream) -> None:
    async with served(hub, stream, heartbeat_s=0.05) as server:
        reader = await server.connect()
        frames = await reader.take(1)
        for seq in range(2, 6):
            while not bytes(reader.raw).endswith(b": ping\n"):
                await reader.read_some()
            await stream.write("x")
            frames += await reader.take(1)
            assert frames[-1].at.endswith(f"-{seq}")
        await stream.end()
        frames += await rest_of(reader)
        assert seqs(frames) == [1, 2, 3, 4, 5, 6]


async def test_a_subscription_that_begins_between_two_events_misses_none(hub: Hub, stream: WrittenStream) -> None:
    """The event is written after the page of the log was read, and another reader's feed has it already: no further
    event wakes this one."""
    async with served(hub, stream) as server, await server.connect() as first:
        seen = await first.take(1)
        page = await stream.log_page(server.subscriptions[0].cursor)
        await stream.write("between")
        seen += await first.take(1)
        await server.caught_up(1, 2)
        cursor = server.subscriptions[0].cursor._replace(seq=1)
        chunks = Subscription(hub, stream.id, cursor, page, Native(stream.id)).chunks()
        async with asyncio.timeout(60):
            assert b"between" in await anext(chunks)
            coming = asyncio.ensure_future(anext(chunks))
            await stream.write("next")
            assert b"next" in await coming
        await chunks.aclose()
        seen += await first.take(1)
        assert text_of(seen) == "betweennext"
