"""One Redis pipeline for all streams of a worker. Ready calls are sent together; further deltas coalesce meanwhile.

At low load an append is sent at once; at high load a tick makes appends fewer and larger. Each node of a cluster has
a pipeline of its own.
"""

import asyncio
from collections.abc import Callable
from operator import attrgetter

from shared.broker.client import run_scripts
from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.servers import NodeConnection, Servers
from shared.broker.trouble import Reason
from shared.errors import BrokerUnavailable
from workers import metrics
from workers.writing.writer import StreamWriter

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.25


class Flusher:
    """Sender of the writers' calls. ``tick_s`` returns how long to coalesce before the next pipeline. ``wake`` puts a
    writer into it; ``run`` sends one after another until cancelled, with backoff while Redis is unavailable."""

    def __init__(self, servers: Servers, tick_s: Callable[[], float]) -> None:
        self._pipelines = NodeLoops[StreamWriter](servers, self._send, attrgetter("holder.state_key"), tick_s=tick_s)
        self._pauses: dict[NodeConnection, float] = {}
        self.wake = self._pipelines.put
        self.run = self._pipelines.run

    async def _send(self, connection: NodeConnection, waiting: list[StreamWriter]) -> None:
        ready = [(writer, call) for writer in waiting if (call := writer.next_call()) is not None]
        if not ready:
            return
        with metrics.APPEND.time():
            replies = await run_scripts(connection, [call for _, call in ready])
        metrics.count_replies(replies)
        failed = []
        for (writer, _), reply in zip(ready, replies, strict=True):
            writer.settle(reply)
            if isinstance(reply, BrokerUnavailable):
                failed.append((writer, reply))
        if len(failed) == len(ready):
            pause_s = self._pauses.get(connection, _FIRST_PAUSE_S)
            self._pauses[connection] = min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            return
        self._pauses.pop(connection, None)
        for writer, error in failed:  # an error of one stream must not hold up the others
            self._pipelines.withdraw(writer)
            pause_s = _FIRST_PAUSE_S if error.reason == Reason.FAILOVER else _LONGEST_PAUSE_S
            asyncio.get_running_loop().call_later(pause_s, self.wake, writer)
