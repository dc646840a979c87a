"""What this worker's providers have to offer, for gateways to know."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from shared.broker.catalog import ProviderModels, publish
from shared.broker.client import Client
from shared.errors import BrokerUnavailable
from workers.providers.base import Provider

_ASK_EVERY_S: Final = 60.0
_TELL_EVERY_S: Final = 5.0


async def publish_models(client: Client, providers: Collection[Provider]) -> None:
    """For ever: ask the providers what they have, and tell the gateways, also a Redis that has forgotten it. All at
    once, so that no gateway takes a part for the whole."""
    while True:
        offers = await asyncio.gather(*(provider.offer() for provider in providers))
        names = (provider.name for provider in providers)
        catalog = {name: ProviderModels(offer.models, offer.open) for name, offer in zip(names, offers, strict=True)}
        for _ in range(round(_ASK_EVERY_S / _TELL_EVERY_S)):
            with suppress(BrokerUnavailable):
                await publish(client, catalog)
            await asyncio.sleep(_TELL_EVERY_S)
