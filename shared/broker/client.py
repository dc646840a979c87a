"""Connections to Redis, and the sending of calls.

Trouble on the way is :class:`shared.errors.BrokerUnavailable`, whatever redis-py calls it: every call of
``scripts`` may be sent again after it.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from shared.broker.connection_pool import pool_of
from shared.broker.pipeline_connection import Command, PipelineConnection
from shared.broker.scripts import Call
from shared.broker.shared_connection import SharedConnection
from shared.errors import BrokerUnavailable, Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: What a plain command may raise: Redis is away, starting, failing over, full, busy or unwell. Nothing that is known
#: to be our own fault comes this way: that would be an error inside a script, see `run_scripts`.
REDIS_ERRORS: Final = (RedisError, OSError)
#: The same as answers to a script. NoScriptError: twice in a row, since it was restarted again in between.
_UNWELL: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
)
#: redis-py has no class for these, or not where it reads them.
_UNWELL_WORDS: Final = (
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
    "BUSY ",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
)


class BrokerUnfit(Unavailable):
    """This Redis answers but cannot be used; the start stops."""

    code = "broker_unfit"


class RedisConnection(Protocol):
    """A connection to send scripts over: a task's own :class:`PipelineConnection`, or the shared :class:`Client`."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]: ...


class Client(Redis):
    """redis-py's asyncio client for plain commands, whose answers are bytes; what is exchanged goes over a trunk.
    Calls fail after ``timeout_s``; a blocking read has to end before that. Connects lazily."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        super().__init__(connection_pool=pool_of(url, timeout_s=timeout_s, connections=connections))
        self._trunk = SharedConnection(PipelineConnection(url, timeout_s=timeout_s))

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self._trunk.exchange(commands)

    async def aclose(self, close_connection_pool: bool | None = True) -> None:
        await self._trunk.aclose()
        await super().aclose(close_connection_pool)


def connect(url: str, *, timeout_s: float = 5, connections: int = 32) -> Client:
    return Client(url, timeout_s=timeout_s, connections=connections)


async def run_script(client: RedisConnection, call: Call[T]) -> T:
    """Raises :class:`BrokerUnavailable`."""
    answer = (await run_scripts(client, [call]))[0]
    if isinstance(answer, BrokerUnavailable):
        raise answer
    return answer


async def run_scripts(client: RedisConnection, calls: Sequence[Call[T]]) -> list[T | BrokerUnavailable]:
    """All calls in one pipeline, each with an answer of its own. Raises only for errors that are ours."""
    try:
        answers = await _send(client, calls)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # a Redis that was restarted or failed over has forgotten the scripts
            again = [calls[i] for i in unknown]
            sources = {call.script.source for call in again}
            await client.exchange([("SCRIPT", "LOAD", source) for source in sources])
            for i, answer in zip(unknown, await _send(client, again), strict=True):
                answers[i] = answer
    except REDIS_ERRORS as error:
        logger.debug("broker trouble: %s", type(error).__name__)
        return [BrokerUnavailable() for _ in calls]
    return [_trouble(answer) or call.parse(answer) for call, answer in zip(calls, answers, strict=True)]


async def run_commands(client: RedisConnection, commands: Sequence[Command]) -> list[Any]:
    """Plain commands, their answers in order. Each must bear to be sent twice. Raises :class:`BrokerUnavailable`. To
    cancel it is safe, which it is not for redis-py's own calls under Python 3.11: ``shared/cancellation.py``."""
    try:
        answers = await client.exchange(commands)
    except REDIS_ERRORS as error:
        raise BrokerUnavailable from error
    for answer in answers:
        if (trouble := _trouble(answer)) is not None:
            raise trouble
    return answers


def parse_info(reply: bytes) -> dict[str, str]:
    """Parse the reply of ``INFO``."""
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)


async def _send(client: RedisConnection, calls: Sequence[Call[T]]) -> list[Any]:
    return await client.exchange(
        [("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.arguments) for call in calls]
    )


def _trouble(answer: Any) -> BrokerUnavailable | None:
    if isinstance(answer, _UNWELL) or (isinstance(answer, ResponseError) and str(answer).startswith(_UNWELL_WORDS)):
        return BrokerUnavailable()
    if isinstance(answer, RedisError):
        raise answer
    return None


async def check_fitness(client: Client) -> None:
    """Raises :class:`BrokerUnfit` for a Redis that is too old or would evict keys, and
    :class:`BrokerUnavailable`."""
    info = parse_info((await run_commands(client, [("INFO",)]))[0])
    version = info.get("valkey_version") or info.get("redis_version", "0")
    if int(version.split(".", maxsplit=1)[0]) < 7:
        raise BrokerUnfit(f"Redis {version} is too old: Headrace needs Redis 7 or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerUnfit(
            f"Redis has maxmemory-policy {policy}, which would silently drop answers: set it to noeviction"
        )
