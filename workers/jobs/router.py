"""Chooses among the targets of a request, and takes their slots, which all workers share."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.desk_replies import OtherLanes, TargetFull
from shared.broker.keys import provider_limit_keys
from shared.broker.scripts import StreamScripts
from shared.configuration.configuration import Configuration
from shared.errors import BrokerUnavailable, ProviderError
from shared.schemas import ChatRequest
from workers.jobs.run import Run, logger, target_of
from workers.providers.circuit_breakers import Breakers
from workers.providers.errors import provider_failure
from workers.providers.keys import Keys

_FRESH_S: Final = 1.0
_MOST: Final = 1000


class Router:
    """One instance serves all jobs of a worker."""

    def __init__(
        self,
        client: Client,
        scripts: StreamScripts,
        breakers: Breakers,
        keys: Keys,
        configuration: Configuration,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._breakers = breakers
        self._keys = keys
        #: Targets whose running streams are counted, for all requests.
        self._counted = {
            target.target
            for alias in configuration.aliases.values()
            if alias.routing == "least_busy"
            for target in alias.targets
        }
        #: Running streams by target, and when they were read.
        self._running: dict[str, tuple[float, int]] = {}

    async def ordered(self, targets: Sequence[ChatRequest], run: Run) -> list[ChatRequest]:
        """Return the targets in the order in which they are tried. With ``least_busy``, the target that the request's
        prefix prefers is first while it is healthy, then those with fewer running streams."""
        if not run.is_least_busy or len(targets) < 2:
            return list(targets)
        await self._read([target_of(request) for request in targets])
        preferred = targets[0] if run.prefix is not None and self._is_healthy(targets[0]) else None

        def rank(request: ChatRequest) -> tuple[bool, bool, int]:
            running = self._running.get(target_of(request), (0.0, 0))[1]
            return request is not preferred, not self._is_healthy(request), running

        return sorted(targets, key=rank)

    async def take_slot(self, request: ChatRequest, run: Run) -> None:
        """Take a slot of the request's provider for one call. Raises :class:`ProviderError` if it has none. Without
        Redis the call is made all the same: nothing can be written meanwhile."""
        provider, target = request.provider or "", target_of(request)
        is_counted = run.is_least_busy or target in self._counted
        if not (run.has_lane or is_counted or provider in self._scripts.target_limits):
            return
        counted = target if is_counted else ""
        try:
            held = run.writer.place.lanes
            call = self._scripts.take_slot(run.writer.holder, provider, counted, held=held)
            taken = await run_script(self._client, call)
            if isinstance(taken, OtherLanes):  # the reply to an earlier call was lost
                run.writer.place.lanes = taken.lanes
                call = self._scripts.take_slot(run.writer.holder, provider, counted, held=taken.lanes)
                taken = await run_script(self._client, call)
        except BrokerUnavailable:
            logger.debug("slot not taken", extra={"stream_id": run.stream_id, "error": "Redis unavailable"})
            return
        if isinstance(taken, TargetFull):
            raise _full(request, taken.limit, taken.wait_s)
        if not isinstance(taken, str):
            return
        run.writer.place.lanes = taken
        run.has_lane = True
        read_at, running = self._running.get(target, (0.0, 0))
        self._running[target] = read_at, running + 1

    def _is_healthy(self, request: ChatRequest) -> bool:
        provider = request.provider or ""
        return not self._breakers.is_open(target_of(request)) and self._keys.has_usable(provider, request.model)

    async def _read(self, targets: Sequence[str]) -> None:
        """Refresh the numbers of running streams that are older than a second."""
        now = asyncio.get_running_loop().time()
        stale = [target for target in targets if self._running.get(target, (-1.0, 0))[0] < now - _FRESH_S]
        if not stale:
            return
        if len(self._running) > _MOST:
            self._running.clear()
        with suppress(BrokerUnavailable):
            since = time.time_ns() // 1_000_000
            commands = [("ZCOUNT", provider_limit_keys(target)[0], since, "+inf") for target in stale]
            counts = await run_commands(self._client, commands)
            self._running |= {target: (now, count) for target, count in zip(stale, counts, strict=True)}


def _full(request: ChatRequest, limit: str, wait_s: float) -> ProviderError:
    provider = request.provider or ""
    detail = f"{limit} of provider {provider} is reached; raise it in [providers.{provider}]"
    if limit == "concurrent_streams":
        detail += " or HEADRACE_PROVIDER_STREAMS"
    return provider_failure(
        "provider_rate_limited", provider, model=request.model, detail=detail, retry_after_s=wait_s
    )
