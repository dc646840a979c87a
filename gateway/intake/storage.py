"""Storage of each principal: its limit of stored bytes, and room for a new stream."""

from typing import Final

from gateway import metrics
from gateway.cache import ExpiringCache
from shared.broker.client import Client
from shared.broker.desk_replies import Stored
from shared.broker.dropping import Dropping, read_memory_use
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, InvalidRequest, LimitReached
from shared.rate_limits import DEFAULT_STORED_BYTES, Demand, Limits
from shared.settings import Settings

_FRESH_S: Final = 10.0
_RENEWED_S: Final = 60.0
_RETRY_AFTER_S: Final = 60


class Storage:
    """Room for new streams in Redis."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings) -> None:
        self._client = client
        self._dropping = Dropping(client, scripts, settings)
        self._limit: ExpiringCache[None, int] = ExpiringCache(
            self._read_limit, fresh_s=_FRESH_S, renewed_s=_RENEWED_S
        )

    async def limit_of(self, limits: Limits) -> int:
        """Return a principal's limit of stored bytes; 0 = unlimited."""
        if limits.stored_bytes is not None:
            return limits.stored_bytes
        try:
            limit = await self._limit.get(None)
        except BrokerUnavailable:  # then the request is refused anyway
            return DEFAULT_STORED_BYTES
        return min(DEFAULT_STORED_BYTES, limit // 4) if limit else DEFAULT_STORED_BYTES

    async def make_room(self, demand: Demand, stored: Stored) -> None:
        """Drop the principal's oldest answers, so that its new stream fits. Raises :class:`LimitReached` if none may
        be dropped, :class:`InvalidRequest` if the request can never fit, and :class:`BrokerUnavailable`."""
        limit = demand.limits.stored_bytes or 0
        if stored.needed > limit:
            problem = f"requires {stored.needed} bytes of storage, above your limit of {limit}"
            raise InvalidRequest(f"messages: {problem}; send less")
        if await self._dropping.make_room(demand.account, stored.stored + stored.needed - limit):
            return
        message = (
            f"{stored.stored} of {limit} bytes of storage are used by answers that must be kept for now; "
            "delete answers, or see Retry-After"
        )
        error = LimitReached("stored_bytes", message, {"Retry-After": str(_RETRY_AFTER_S)})
        metrics.REFUSALS.labels(error.code).inc()
        raise error

    async def relieve(self) -> bool:
        """Drop the oldest answers of all principals if a server's memory is nearly full. Return True if there may be
        room now: some were dropped here, or by the sweep just before. Raises :class:`BrokerUnavailable`."""
        memory = await read_memory_use(self._client)
        return not any(each.excess for each in memory.values()) or await self._dropping.relieve(memory) > 0

    async def _read_limit(self, _: None) -> int:
        """Return the memory limit of all servers together; 0 if one has none."""
        limits = [memory.limit for memory in (await read_memory_use(self._client)).values()]
        return sum(limits) if all(limits) else 0
