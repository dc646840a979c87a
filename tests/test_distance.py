"""Redis in another zone or region: the exchanges in sequence from a POST to its first token.

A proxy adds a round trip that is far longer than all work between two exchanges. The time to the first token, in
round trips, is then the number of exchanges in sequence and a fraction. A request that comes between two waiting pops
of the worker takes up to one more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.broker_cluster import Cluster
from tests.cluster.system import ClusterSystem
from tests.system import System
from tests.tap import Tap

#: The others are for a machine that is too busy for the first. None is near a second: connecting takes a few of them,
#: and a listener waits no longer than that for its connection.
_ROUND_TRIPS_S: Final = (0.3, 0.6, 0.3)
_MOST_REQUESTS: Final = 12


async def no_more(_: Tap) -> None:
    """Prepare nothing."""


@asynccontextmanager
async def far(system: System, port: int, prepare: Callable[[Tap], Awaitable[object]] = no_more) -> AsyncIterator[Tap]:
    """Start the processes of a system whose broker runs at ``port``, with a proxy between both. ``prepare``: called
    with the proxy before."""
    tap = Tap(port)
    await tap.start()
    system.redis_url = system.redis_url.replace(str(port), str(tap.port))
    try:
        await prepare(tap)
        await system.start_processes()
        await to_first_token(system)  # Redis has the scripts, and all connections are open
        yield tap
    finally:
        await system.stop()
        await tap.stop()


async def to_first_token(system: System) -> float:
    """Send a request, and return the seconds to its first token."""
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    async with await system.stream("demo", provider="demo") as connection:
        await connection.next("token")
        return loop.time() - begun_at


async def takes_at_most(exchanges: int, system: System, tap: Tap) -> bool:
    """Return True once the first token of a request takes so few exchanges. Some take more: those that meet a worker
    between two pops, or a machine that is busy for longer than a round trip."""
    for round_trip_s in _ROUND_TRIPS_S:
        tap.round_trip_s = round_trip_s
        tap.cut()  # the connections of before have measured a near server, and would not overlap exchanges
        for _ in range(_MOST_REQUESTS):
            if int(await to_first_token(system) / round_trip_s) <= exchanges:
                return True
    return False


@pytest.mark.timeout(400)
async def test_a_first_token_takes_three_exchanges_with_one_server(tmp_path: Path) -> None:
    """Begin with admit, take with claim, append. The answer of the waiting pop and the message take half of one each,
    as do the requests before them."""
    system = System(tmp_path, gateways=1, workers=1, providers=())
    await system.start_broker()
    async with far(system, system.broker.port) as tap:
        assert await takes_at_most(3, system, tap)


@pytest.mark.timeout(400)
async def test_a_first_token_takes_five_exchanges_with_a_cluster(tmp_path: Path) -> None:
    """Steps at the desk and in a bucket follow each other."""
    cluster = Cluster(tmp_path / "cluster", masters=1)
    system = ClusterSystem(tmp_path, cluster, gateways=1, workers=1, providers=())
    await system.start_broker()
    (node,) = cluster.nodes

    async def announce(tap: Tap) -> None:
        await node.run_command("CONFIG", "SET", "cluster-announce-port", tap.port)

    async with far(system, node.port, announce) as tap:
        assert await takes_at_most(5, system, tap)
