"""Drops answers that have ended, the oldest first, to free storage (rules S12 and S13).

Two reasons: a server's memory is nearly full, then its oldest answers of all go; or a principal has reached its limit
of stored bytes, then its own go. drop.lua decides about each answer. Dropped answers keep their tombstones.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.broker.client import REDIS_ERRORS, Client, parse_info, run_commands
from shared.broker.cluster.address import Node
from shared.broker.keys import ABOVE_LIMIT, account_keys, answers_keys, kept_key
from shared.broker.pipeline_connection import Command
from shared.broker.removal import drop_answer
from shared.broker.scripts import StreamScripts
from shared.broker.trouble import classify
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: Share of maxmemory from which on answers are dropped.
PRESSURE: Final = 0.8
_PAGE: Final = 16
_ANSWERS: Final = answers_keys()
#: Most answers to examine at once, so that a call stays short; the next call goes on.
_MOST_EXAMINED: Final = 2048

#: Time for which an index without any answer to drop is not examined again, and most indexes to remember.
_NOTHING_FOR_S: Final = 3.0
_MOST_REMEMBERED: Final = 10_000

Reason = Literal["memory", "stored_bytes"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one server in bytes. ``limit``: maxmemory; 0 if there is none."""

    used: int
    limit: int

    @property
    def excess(self) -> int:
        """Bytes above the share at which answers are dropped."""
        return max(0, self.used - int(self.limit * PRESSURE)) if self.limit else 0


def memory_of(info: dict[str, str]) -> Memory:
    """Return the memory in the reply of ``INFO memory``, without the buffers of replicas and clients: they come and
    go, and must not cost answers."""
    uncounted = int(info.get("mem_not_counted_for_evict", 0)) + int(info.get("mem_clients_normal", 0))
    return Memory(int(info["used_memory"]) - uncounted, int(info["maxmemory"]))


async def read_memory_use(client: Client) -> dict[Node, Memory]:
    """Read the memory of each server that answers. Raises :class:`BrokerUnavailable` if none does."""
    try:
        replies = await client.servers.on_each(("INFO", "memory"))
    except REDIS_ERRORS as error:
        raise classify(error, client.target) from error
    found = {node: memory_of(parse_info(r)) for node, r in replies.items() if not isinstance(r, Exception)}
    if not found:
        raise classify(next(iter(replies.values())), client.target) from None
    return found


class Dropping:
    """Drops answers that drop.lua does not keep."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings) -> None:
        self._client = client
        self._scripts = scripts
        self._retention_s = settings.retention_s
        self._retention_min_s = min(settings.retention_min_s, settings.retention_s)
        self._nothing_until: dict[str, float] = {}  # by index; until then nothing is examined again

    async def relieve(self, memory: Mapping[Node, Memory]) -> int:
        """Drop the oldest answers of all principals, of each server until its memory is below the share. Return the
        number of dropped answers. Raises :class:`BrokerUnavailable`."""
        dropped, until = 0, time.time() - self._retention_min_s
        for node, each in memory.items():
            own = [key for key in _ANSWERS if self._client.servers.node_of(key) == node] if each.excess else []
            dropped += await self._drop(own, until, each.excess, "memory") if own else 0
        return dropped

    async def relieve_accounts(self) -> None:
        """Drop the oldest answers of accounts above their limit, whose streams in progress have taken more. Raises
        :class:`BrokerUnavailable`."""
        (flat,) = await run_commands(self._client, [("ZPOPMAX", ABOVE_LIMIT, _PAGE)])
        accounts = {account.decode(): int(limit) for account, limit in zip(flat[::2], flat[1::2], strict=True)}
        if not accounts:
            return
        # Looked at now: a stream that has ended meanwhile takes a fraction of its bytes.
        keys = [account_keys(account)["stored"] for account in accounts]
        totals = await run_commands(self._client, [("HGET", key, "total") for key in keys])
        for (account, limit), total in zip(accounts.items(), totals, strict=True):
            if (excess := int(total or 0) - limit) > 0:
                await self.make_room(account, excess)

    async def make_room(self, account: str, bytes_needed: int) -> int:
        """Drop the oldest answers of one account, for so many bytes. Return the number of dropped answers. Raises
        :class:`BrokerUnavailable`."""
        # The index has the ends of retention. Streams that wait or run have later ones.
        until = time.time() + self._retention_s - self._retention_min_s
        return await self._drop([kept_key(account)], until, bytes_needed, "stored_bytes")

    async def _drop(self, indexes: Sequence[str], until: float, bytes_needed: int, reason: Reason) -> int:
        if time.monotonic() < self._nothing_until.get(indexes[0], 0):
            return 0
        dropped, freed, examined = 0, 0, set[bytes]()
        while freed < bytes_needed and len(examined) < _MOST_EXAMINED:
            # Answers that must be kept stay in their index, in front.
            page = await self._oldest(indexes, until, len(examined) - dropped + _PAGE)
            new = [stream_id for stream_id in page if stream_id not in examined]
            for stream_id in new:
                given_back = await drop_answer(self._client, self._scripts, stream_id.decode())
                examined.add(stream_id)
                dropped += given_back > 0
                freed += given_back
                if freed >= bytes_needed:
                    break
            if not new:
                break
        if not dropped:
            if len(self._nothing_until) >= _MOST_REMEMBERED:
                self._nothing_until.clear()
            self._nothing_until[indexes[0]] = time.monotonic() + _NOTHING_FOR_S
        else:
            from shared.metrics import DROPPED  # noqa: PLC0415  slow to load, and the CLI never needs it

            DROPPED.labels(reason).inc(dropped)
            logger.warning("answers dropped", extra={"reason": reason, "answers": dropped, "bytes": freed})
        return dropped

    async def _oldest(self, indexes: Sequence[str], until: float, most: int) -> list[bytes]:
        """Return the oldest ids of all indexes, from ``most`` of each: as far as their order is certain."""
        rest = ("-inf", round(until * 1000), "BYSCORE", "LIMIT", 0, most, "WITHSCORES")
        commands: list[Command] = [("ZRANGE", index, *rest) for index in indexes]
        pages = [
            list(zip(map(float, flat[1::2]), flat[::2], strict=True))
            for flat in await run_commands(self._client, commands)
        ]
        certain = min((page[-1][0] for page in pages if len(page) == most), default=float("inf"))
        return [
            stream_id for score, stream_id in sorted(entry for page in pages for entry in page) if score <= certain
        ]
