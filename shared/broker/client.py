"""Connections to Redis, and the three ways to use them: run_script, run_scripts and run_commands.

All three raise or return :class:`shared.errors.BrokerUnavailable` if Redis fails or refuses a command, for whatever
reason; every call may be repeated after it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from shared.broker.batches import batches_of
from shared.broker.cluster.address import Node
from shared.broker.cluster.owner import owner_pool
from shared.broker.cluster.redirects import SlotMoved
from shared.broker.cluster.servers import servers_of
from shared.broker.data_version import DataVersion
from shared.broker.declarations import Call
from shared.broker.keys import QUEUE
from shared.broker.pipeline_connection import Command
from shared.broker.replies import IllegalStatus
from shared.broker.trouble import Reason, classify
from shared.broker.trouble_log import TROUBLE
from shared.errors import BrokerUnavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

_WHOLE_READS: Final = 8

#: Exceptions of redis-py and the network: Redis is away, starting, failing over, full or busy, or refuses a command.
#: Only this package and the loops that listen or take from the queue catch them; others get BrokerUnavailable.
REDIS_ERRORS: Final = (RedisError, OSError)
#: Illegal statuses are logged once in this time for each of at most so many keys.
_ILLEGAL_LOG_S: Final = 60.0
_MOST_ILLEGAL: Final = 1000
_illegal_logged: dict[str, float] = {}
#: Reasons of error replies that concern more than the one command.
_SHARED_REASONS: Final = frozenset(Reason) - {Reason.ERROR}


class RedisConnection(Protocol):
    """A connection: a task's own :class:`PipelineConnection`, or the shared :class:`Client`."""

    #: The address, without password, for logs.
    target: str

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; see :meth:`PipelineConnection.exchange`."""


class Client(Redis):
    """All servers, with :meth:`exchange` over one shared connection to each. Replies are bytes. Calls fail after
    ``timeout_s``; a blocking read must end before that. Connects lazily. It is also redis-py's client of the
    desk."""

    def __init__(self, url: str, *, timeout_s: float, connections: int, serves: bool) -> None:
        self.servers = servers_of(url, timeout_s=timeout_s)
        super().__init__(
            connection_pool=owner_pool(self.servers, QUEUE, timeout_s=timeout_s, connections=connections)
        )
        self.url = url
        self.target = self.servers.target
        self.data_version = DataVersion(self.servers) if serves else None
        #: Whole logs that may be read at once: each fills buffers of Redis and of this process.
        self.whole_reads = asyncio.Semaphore(_WHOLE_READS)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; see :meth:`PipelineConnection.exchange`. A client that ``serves`` sends none to a database
        with data of another version; it raises :class:`BrokerUnavailable` instead."""
        if self.data_version is not None and not self.data_version.is_adopted:
            await self.data_version.adopt()
            if not self.data_version.is_adopted:
                raise BrokerUnavailable(detail=f"Redis at {self.target}: it has data of another version")
        return await self.servers.exchange(commands)

    async def aclose(self, close_connection_pool: bool | None = True) -> None:
        await self.servers.aclose()
        await super().aclose(close_connection_pool)


def connect(url: str, *, timeout_s: float = 5, connections: int = 32, serves: bool = False) -> Client:
    """Make a client; it connects with its first call. ``serves``: it belongs to a gateway or a worker, and checks the
    version of the data before its first command."""
    return Client(url, timeout_s=timeout_s, connections=connections, serves=serves)


async def run_script(client: RedisConnection, call: Call[T]) -> T:
    """Run one script. Raises :class:`BrokerUnavailable`."""
    reply = (await run_scripts(client, [call]))[0]
    if isinstance(reply, BrokerUnavailable):
        raise reply
    return reply


async def run_scripts(client: RedisConnection, calls: Sequence[Call[T]]) -> list[T | BrokerUnavailable]:
    """Run scripts in one pipeline; each has its own reply. Raises nothing of Redis: a script that it refuses, or in
    which a command fails, returns :class:`BrokerUnavailable`."""
    try:
        replies = await _send(client, calls)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # a restart or a failover has lost the scripts
            again = [calls[i] for i in unknown]
            sources = dict.fromkeys(source for call in again for source in call.script.to_load)
            await client.exchange([("SCRIPT", "LOAD", source) for source in sources])
            for i, reply in zip(unknown, await _send(client, again), strict=True):
                replies[i] = reply
    except (*REDIS_ERRORS, BrokerUnavailable) as error:
        outage = classify(error, client.target)
        logger.debug("Redis unavailable", extra={"reason": outage.reason})
        return [outage for _ in calls]
    parsed: list[T | BrokerUnavailable] = []
    for call, reply in zip(calls, replies, strict=True):
        if isinstance(reply, Exception):
            parsed.append(refused(reply, client.target, call.script.name))
            continue
        try:
            parsed.append(call.parse(reply))
        except IllegalStatus as error:  # a status that the table of transitions excludes: an outage to the caller
            report_illegal_status(error, call.keys[0])
            parsed.append(error)
    return parsed


def report_illegal_status(error: IllegalStatus, key: str) -> None:
    """Count a status that the table of transitions excludes, and log it once a minute: readers retry it for ever."""
    from shared.metrics import ILLEGAL_TRANSITIONS  # noqa: PLC0415  slow to load, and the CLI never needs it

    ILLEGAL_TRANSITIONS.labels(error.script).inc()
    now = time.monotonic()
    if now - _illegal_logged.get(key, -_ILLEGAL_LOG_S) >= _ILLEGAL_LOG_S:
        if len(_illegal_logged) >= _MOST_ILLEGAL:
            _illegal_logged.clear()
        _illegal_logged[key] = now
        logger.error("illegal transition", extra={"script": error.script, "status": error.status, "key": key})


async def run_commands(client: RedisConnection, commands: Sequence[Command]) -> list[Any]:
    """Run plain commands in one pipeline and return their replies. Each command must be safe to send twice. Raises
    :class:`BrokerUnavailable`. Unlike redis-py's own calls under Python 3.11 it can be cancelled safely; see
    ``shared/cancellation.py``."""
    try:
        replies = await client.exchange(commands)
    except REDIS_ERRORS as error:
        raise classify(error, client.target) from error
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, Exception):
            # Without the reply as the cause: its words may quote arguments.
            raise refused(reply, client.target, str(command[0])) from None
    return replies


async def run_on_each(client: Client, command: Command) -> Mapping[Node, Any]:
    """Run one command without a key on each node, and return its replies. Raises :class:`BrokerUnavailable`."""
    try:
        replies = await client.servers.on_each(command)
    except REDIS_ERRORS as error:
        raise classify(error, client.target) from error
    for node, reply in replies.items():
        if isinstance(reply, Exception):
            raise refused(reply, f"{node} of {client.target}", str(command[0])) from None
    return replies


def parse_info(reply: bytes) -> dict[str, str]:
    """Parse the reply of ``INFO``."""
    return dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)


async def _send(client: RedisConnection, calls: Sequence[Call[T]]) -> list[Any]:
    """Return the reply to each call. Calls of a script that takes many streams go together, by route."""
    batches = batches_of(calls)
    raw: list[Any] = [None] * len(calls)
    for batch, reply in zip(batches, await client.exchange([batch.command() for batch in batches]), strict=True):
        batch.put_replies(reply, raw)
    return raw


def refused(reply: BaseException, target: str, what: str) -> BrokerUnavailable:
    """Return and log the error that an error reply means. ``what``: the script or command."""
    error = classify(reply, target)
    if isinstance(reply, SlotMoved):  # the next try finds its node
        return error
    if error.reason in _SHARED_REASONS:
        TROUBLE.report(error)
    else:
        TROUBLE.refused(error, what)
    return error
