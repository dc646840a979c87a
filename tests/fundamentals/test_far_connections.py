"""Exchanges with a Redis that is far away overlap; with one that is near, they follow each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import RedisError

from shared.broker.client import connect, run_commands
from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.servers import NodeConnection, OneServer
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.shared_connection import SharedConnection
from shared.errors import BrokerUnavailable
from tests.broker import Broker
from tests.tap import Tap

#: Enough for exchanges to overlap, on any machine.
FAR_S = 0.01


@pytest.fixture
async def tap(redis: Broker) -> AsyncIterator[Tap]:
    tap = Tap(redis.port, FAR_S)
    tap.records = True
    await tap.start()
    yield tap
    await tap.stop()


@pytest.fixture
async def connection(tap: Tap) -> AsyncIterator[PipelineConnection]:
    """A connection that knows its distance."""
    connection = PipelineConnection(f"redis://127.0.0.1:{tap.port}/0", timeout_s=60)
    await connection.exchange([("PING",)])
    yield connection
    await connection.aclose()


def asked(tap: Tap) -> list[str]:
    """Return the texts of all ECHO commands that have passed, in order."""
    values = [value for piece in tap.pieces if not piece.is_reply for value in piece.values]
    return [command[1].decode() for command in values if command[0] == b"ECHO"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


class Loops:
    """Loops whose items are texts that are echoed. ``served``: what was answered, in order."""

    def __init__(self, servers: OneServer) -> None:
        self.served: list[str] = []
        self.error: Exception | None = None
        self.is_far = False
        self.loops = NodeLoops[str](servers, self._serve, lambda text: text)

    async def _serve(self, connection: NodeConnection, texts: list[str]) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        replies = await connection.exchange([("ECHO", text) for text in texts])
        self.served += [reply.decode() for reply in replies]
        self.is_far = connection.far_s > 0


@asynccontextmanager
async def loops_at(port: int) -> AsyncIterator[tuple[Loops, asyncio.Task[None]]]:
    servers = OneServer(f"redis://127.0.0.1:{port}/0", timeout_s=60)
    loops = Loops(servers)
    task = asyncio.create_task(loops.loops.run())
    try:
        yield loops, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await servers.aclose()


async def test_an_item_does_not_wait_for_the_exchange_of_another(tap: Tap) -> None:
    async with loops_at(tap.port) as (loops, _):
        loops.loops.put("first")
        await until(lambda: loops.served == ["first"])
        tap.holds_replies = True
        for text in ("a", "b", "c"):
            loops.loops.put(text)
            await until(lambda text=text: text in asked(tap))  # type: ignore[misc]
        loops.loops.put("a")  # is served already, so it waits for the reply
        loops.loops.put("d")
        await until(lambda: "d" in asked(tap))
        assert asked(tap) == ["first", "a", "b", "c", "d"]
        tap.release()
        await until(lambda: loops.served == ["first", "a", "b", "c", "d", "a"])


async def test_items_of_a_near_server_wait_for_each_other_and_go_together(tap: Tap) -> None:
    tap.round_trip_s = 0
    async with loops_at(tap.port) as (loops, _):
        loops.is_far, number = True, 0
        while loops.is_far:  # exchanges can take long on a busy machine, but not all of them
            number += 1
            loops.loops.put(f"near-{number}")
            await until(lambda: len(loops.served) == number)  # noqa: B023
        loops.served.clear()
        tap.pieces.clear()
        tap.holds_replies = True
        loops.loops.put("a")
        await until(lambda: "a" in asked(tap))
        for text in ("b", "c", "a"):
            loops.loops.put(text)
        tap.release()
        await until(lambda: loops.served == ["a", "b", "c", "a"])
    requests = [piece for piece in tap.pieces if not piece.is_reply]
    assert [len(piece.values) for piece in requests] == [1, 3]


async def test_an_item_that_is_withdrawn_while_it_is_served_is_not_served_again(tap: Tap) -> None:
    async with loops_at(tap.port) as (loops, _):
        loops.loops.put("first")
        await until(lambda: loops.served == ["first"])
        tap.holds_replies = True
        loops.loops.put("a")
        await until(lambda: "a" in asked(tap))
        loops.loops.put("a")
        loops.loops.withdraw("a")
        tap.release()
        loops.loops.put("b")
        await until(lambda: "b" in loops.served)
        assert loops.served == ["first", "a", "b"]


async def test_items_are_served_again_after_a_broken_connection(tap: Tap) -> None:
    async with loops_at(tap.port) as (loops, _):
        loops.loops.put("first")
        await until(lambda: loops.served == ["first"])
        tap.holds_replies = True
        for text in ("a", "b", "c"):
            loops.loops.put(text)
            await until(lambda text=text: text in asked(tap))  # type: ignore[misc]
        tap.holds_replies = False
        tap.held.clear()
        for end in list(tap.open):
            end.close()
        await until(lambda: sorted(loops.served) == ["a", "b", "c", "first"])


async def test_an_error_of_redis_repeats_the_items_and_another_ends_the_loops(tap: Tap) -> None:
    async with loops_at(tap.port) as (loops, task):
        loops.loops.put("first")
        await until(lambda: loops.served == ["first"])
        loops.error = RedisError("try again")
        loops.loops.put("a")
        await until(lambda: loops.served == ["first", "a"])
        loops.error = LookupError("a bug")
        loops.loops.put("b")
        with pytest.raises(LookupError):
            await asyncio.wait_for(task, 20)


async def test_overlapping_exchanges_get_their_own_replies(tap: Tap, connection: PipelineConnection) -> None:
    tap.holds_replies = True
    exchanges = []
    for number in range(5):
        commands = [("ECHO", f"{number}-{place}") for place in range(number + 1)]
        exchanges.append(asyncio.create_task(connection.exchange(commands)))
    await until(lambda: len(asked(tap)) == 15)
    tap.release()
    replies = await asyncio.gather(*exchanges)
    assert replies == [[f"{number}-{place}".encode() for place in range(number + 1)] for number in range(5)]


async def test_a_cancelled_exchange_leaves_its_replies_to_no_other(tap: Tap, connection: PipelineConnection) -> None:
    tap.holds_replies = True
    cancelled, kept = (asyncio.create_task(connection.exchange([("ECHO", text)])) for text in ("a", "b"))
    await until(lambda: len(asked(tap)) == 2)
    tap.holds_replies = False
    cancelled.cancel()
    assert await kept == [b"b"]
    assert cancelled.cancelled()
    assert await connection.exchange([("ECHO", "c")]) == [b"c"]


async def test_all_exchanges_end_when_the_first_takes_too_long(tap: Tap) -> None:
    connection = PipelineConnection(f"redis://127.0.0.1:{tap.port}/0", timeout_s=3)
    await connection.exchange([("PING",)])
    tap.holds_replies = True
    ended = await asyncio.gather(
        *(connection.exchange([("ECHO", text)]) for text in ("a", "b")), return_exceptions=True
    )
    assert [type(each) for each in ended] == [TimeoutError, TimeoutError]
    tap.holds_replies = False
    assert await connection.exchange([("ECHO", "c")]) == [b"c"]
    await connection.aclose()


async def test_a_short_call_does_not_wait_for_another(tap: Tap, connection: PipelineConnection) -> None:
    shared = SharedConnection(connection)
    tap.holds_replies = True

    def call(text: str) -> Awaitable[list[bytes]]:
        return asyncio.create_task(shared.exchange([("ECHO", text)]))

    first = call("a")
    await until(lambda: asked(tap) == ["a"])
    together = [call("b"), call("c")]
    await until(lambda: asked(tap) == ["a", "b", "c"])
    assert not shared.is_idle
    tap.release()
    assert await asyncio.gather(first, *together) == [[b"a"], [b"b"], [b"c"]]
    requests = [piece for piece in tap.pieces if not piece.is_reply]
    assert len(requests[-1].values) == 2, "calls of one moment share an exchange"
    await until(lambda: shared.is_idle)


async def test_a_client_serves_many_calls_at_once_over_one_connection(tap: Tap) -> None:
    client = connect(f"redis://127.0.0.1:{tap.port}/0", timeout_s=60)
    try:
        async with asyncio.timeout(60):
            for _ in range(20):
                calls = [run_commands(client, [("ECHO", str(number))]) for number in range(300)]
                assert await asyncio.gather(*calls) == [[str(number).encode()] for number in range(300)]
        assert tap.connections == 1
        await tap.stop()
        with pytest.raises(BrokerUnavailable):
            await run_commands(client, [("PING",)])
    finally:
        await client.aclose()
