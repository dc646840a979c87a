"""Readiness of this gateway: Redis is usable, and a worker has published its models since the start.

A loss of all workers later makes no gateway unready, because resumes need no worker. Neither does a full Redis: it
serves what it has.
"""

import asyncio
from typing import Final

from gateway.intake.acceptance import Acceptance
from gateway.intake.models import Models
from shared.broker.trouble import Reason
from shared.broker.watch import BrokerWatch
from shared.errors import BrokerFull, BrokerUnavailable, NoModels

_WITHIN_S: Final = 2.0


class Readiness:
    def __init__(self, watch: BrokerWatch, models: Models, acceptance: Acceptance) -> None:
        self._watch = watch
        self._models = models
        self._acceptance = acceptance

    async def is_accepting(self) -> bool:
        """Return whether new requests are accepted. Raises :class:`BrokerUnavailable` and :class:`NoModels` if this
        gateway is not ready."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await self._is_accepting()
        except TimeoutError:
            raise BrokerUnavailable(reason=Reason.TIMEOUT) from None

    async def _is_accepting(self) -> bool:
        trouble = await self._watch.check()
        if trouble is not None and not isinstance(trouble, BrokerFull):
            raise trouble
        if not self._models.were_seen and not await self._models.catalog():
            raise NoModels
        return trouble is None and await self._acceptance.is_accepting()
