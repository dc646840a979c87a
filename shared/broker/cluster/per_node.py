"""One task for each node, as long as the node is a master."""

import asyncio
from collections.abc import Callable, Coroutine

from shared.broker.cluster.address import Node
from shared.broker.cluster.servers import Servers


async def run_per_node(servers: Servers, run_one: Callable[[Node], Coroutine[None, None, None]]) -> None:
    """Run ``run_one`` for each node until cancelled, or until one of them raises an error. The task of a node that is
    no longer a master is cancelled. It is not awaited then: closing a connection to a frozen node may take long."""
    tasks: dict[Node, asyncio.Task[None]] = {}
    leaving = set[asyncio.Task[None]]()
    changed: asyncio.Task[None] | None = None
    try:
        while True:
            version, nodes = servers.version, set(servers.nodes)
            for node in nodes - set(tasks):
                tasks[node] = asyncio.create_task(run_one(node))
            for node in set(tasks) - nodes:
                task = tasks.pop(node)
                task.cancel()
                leaving.add(task)
                task.add_done_callback(leaving.discard)
            changed = asyncio.create_task(servers.changed_since(version))
            done, _ = await asyncio.wait((changed, *tasks.values()), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await _end([changed])
    finally:
        await _end([*tasks.values(), *leaving, *([changed] if changed else [])])


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
