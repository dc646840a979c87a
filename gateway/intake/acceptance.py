"""Checks that a worker runs which can take new requests."""

from contextlib import suppress
from typing import Final

from gateway import metrics
from shared.broker.client import Client
from shared.broker.processes import read_processes
from shared.errors import BrokerUnavailable
from shared.polling import next_poll

_READ_EVERY_S: Final = 2.0


class Acceptance:
    """Reads the reports of the workers. A worker that was killed counts until its report expires."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self) -> None:
        """Run until cancelled: export the state as a metric."""
        while True:
            with suppress(BrokerUnavailable):
                metrics.ACCEPTING.set(await self.is_accepting())
            await next_poll(_READ_EVERY_S)

    async def is_accepting(self) -> bool:
        """Return whether a worker runs that does not drain. Raises :class:`BrokerUnavailable`."""
        processes = await read_processes(self._client)
        return any(each.kind == "worker" and not each.load.draining for each in processes)
