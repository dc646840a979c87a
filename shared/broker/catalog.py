"""The model catalog: published by the workers, which hold the provider keys, and read by the gateways.

``hr:catalog`` is a hash, provider → JSON ``{"models": […], "open": bool}``. ``open``: any other name is passed on to
the provider too.
"""

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import CATALOG

#: The catalog outlives an outage of all workers; requests then wait in the queue.
_LIFE_S = 24 * 3600


class ProviderModels(msgspec.Struct, frozen=True):
    """One provider's models, under the provider's names."""

    models: tuple[str, ...]
    open: bool = False

    def has(self, model: str) -> bool:
        return self.open or model in self.models


Catalog = dict[str, ProviderModels]
_decoder = msgspec.json.Decoder(ProviderModels)


async def publish(client: Client, catalog: Catalog) -> None:
    """Publish one worker's models, all in one command. Raises :class:`BrokerUnavailable`."""
    if not catalog:
        return
    fields = [item for name, offered in catalog.items() for item in (name, msgspec.json.encode(offered))]
    await run_commands(client, [("HSET", CATALOG, *fields), ("EXPIRE", CATALOG, _LIFE_S)])


async def read_catalog(client: Client) -> Catalog:
    """Return the models of all providers. Raises :class:`BrokerUnavailable`."""
    (flat,) = await run_commands(client, [("HGETALL", CATALOG)])
    stored = sorted(zip(flat[::2], flat[1::2], strict=True))
    return {name.decode(): _decoder.decode(offered) for name, offered in stored}
