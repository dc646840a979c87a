"""What can be asked for: told by the workers, which hold the provider keys, read by the gateways.

``hr:catalog`` is a hash, provider → JSON ``{"models": […], "open": bool}``. ``open``: any other name is passed on
to the provider too.
"""

import msgspec

from shared.broker.client import REDIS_ERRORS, Client
from shared.broker.keys import CATALOG
from shared.errors import BrokerUnavailable

#: Outlives a fleet of workers that is away for a while; requests then wait in the queue.
_LIFE_S = 24 * 3600


class ProviderModels(msgspec.Struct, frozen=True):
    """One provider's models, by the provider's own names."""

    models: tuple[str, ...]
    open: bool = False

    def has(self, model: str) -> bool:
        return self.open or model in self.models


Catalog = dict[str, ProviderModels]
_decoder = msgspec.json.Decoder(ProviderModels)


async def publish(client: Client, catalog: Catalog) -> None:
    """What one worker offers. Raises :class:`BrokerUnavailable`."""
    shelves = {name: msgspec.json.encode(shelf).decode() for name, shelf in catalog.items()}
    try:
        async with client.pipeline(transaction=True) as pipe:
            pipe.hset(CATALOG, mapping=shelves)
            pipe.expire(CATALOG, _LIFE_S)
            await pipe.execute()
    except REDIS_ERRORS as error:
        raise BrokerUnavailable from error


async def read_catalog(client: Client) -> Catalog:
    """Raises :class:`BrokerUnavailable`."""
    try:
        stored: dict[bytes, bytes] = await client.hgetall(CATALOG)  # type: ignore[misc]  # redis-py's own union
    except REDIS_ERRORS as error:
        raise BrokerUnavailable from error
    return {name.decode(): _decoder.decode(shelf) for name, shelf in sorted(stored.items())}
