"""What operators see of the whole, looked up once a second at most, however many of them look."""

import asyncio
from typing import Final

from shared.broker.client import Client
from shared.broker.overview import Overview, read_overview

_FRESH_S: Final = 1.0


class Glance:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Overview] | None = None

    async def look(self) -> Overview:
        """A second old at most. Raises :class:`BrokerUnavailable`."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._seen is None or now - self._seen[0] > _FRESH_S:
                self._seen = now, await read_overview(self._client)
            return self._seen[1]
