"""CPU costs of PUBLISH and SPUBLISH for every node of a Redis Cluster: ``python -m bench.bus_cost``.

Starts three nodes on this machine for some seconds. PUBLISH goes to all nodes, also from a script; SPUBLISH stays in
its shard. Requires redis-server or valkey-server on the path.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.cpu import cpu_s
from bench.markdown import aligned
from tests.ports import free_port

_BOUNDS: Final = (0, 5461, 10_922, 16_384)  # of the nodes' slots
_PIPELINES, _TOGETHER = 100, 200
_CHANNEL: Final = "{06}hr:gateway:g00112233"  # the first node has its slot
_BUS_OFFSET: Final = 10_000  # above a node's port


def main() -> None:
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        sys.exit("no redis-server or valkey-server on the path; install one of them")
    with ExitStack() as stack:
        ports, nodes = [], []
        for _ in _BOUNDS[1:]:
            port = _port_with_room()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
            node = subprocess.Popen([*command, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL)
            stack.callback(node.wait)
            stack.callback(node.kill)
            ports.append(port)
            nodes.append(node.pid)
        asyncio.run(_measure(ports, nodes))


async def _measure(ports: list[int], pids: list[int]) -> None:
    clients = [Redis(port=port) for port in ports]
    try:
        async with asyncio.timeout(30):
            await _join(clients, ports)
        rows = [["us of CPU for each, by node", "the node that is called", "another", "another"]]
        for command in (("PUBLISH", _CHANNEL, "x" * 34), ("SPUBLISH", _CHANNEL, "x" * 34), ("ECHO", "x" * 34)):
            before = [cpu_s(pid) for pid in pids]
            for _ in range(_PIPELINES):
                async with clients[0].pipeline(transaction=False) as pipe:
                    for _ in range(_TOGETHER):
                        pipe.execute_command(*command)
                    await pipe.execute()
            await asyncio.sleep(0.3)  # messages on their way to the other nodes
            spent = [cpu_s(pid) - was for pid, was in zip(pids, before, strict=True)]
            rows.append([command[0], *(f"{s / _PIPELINES / _TOGETHER * 1e6:.2f}" for s in spent)])
        print(aligned(rows))
    finally:
        for client in clients:
            await client.aclose()


async def _join(clients: list[Redis], ports: list[int]) -> None:
    for number, (client, (first, end)) in enumerate(zip(clients, pairwise(_BOUNDS), strict=True), start=1):
        while True:
            with suppress(RedisError, OSError):
                await _cluster(client, "ADDSLOTSRANGE", first, end - 1)
                await _cluster(client, "SET-CONFIG-EPOCH", number)
                break
            await asyncio.sleep(0.05)
    for port in ports[1:]:
        await _cluster(clients[0], "MEET", "127.0.0.1", port)
    for client in clients:
        while b"cluster_state:ok" not in await _cluster(client, "INFO"):
            await asyncio.sleep(0.1)


async def _cluster(client: Redis, *words: str | int) -> Any:
    return await client.execute_command("CLUSTER", *words)  # type: ignore[no-untyped-call]  # redis-py has none


def _port_with_room() -> int:
    """Return a free port with a valid bus port above it."""
    while (port := free_port()) > 65_535 - _BUS_OFFSET:
        pass
    return port


if __name__ == "__main__":
    main()
