"""Publishes the models of this worker's providers to the gateways."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from shared.broker.catalog import ProviderModels, publish
from shared.broker.client import Client
from shared.errors import BrokerUnavailable
from workers.providers.base import Provider

_LIST_EVERY_S: Final = 60.0
_PUBLISH_EVERY_S: Final = 5.0


async def publish_models(client: Client, providers: Collection[Provider]) -> None:
    """Run until cancelled: list the models every minute and publish them every 5 s, also after Redis lost them. All
    providers are published together, so that no gateway sees an incomplete list."""
    while True:
        lists = await asyncio.gather(*(provider.list_models() for provider in providers))
        catalog = {
            provider.name: ProviderModels(
                listed.models,
                listed.open,
                listed.closed,
                created=dict(listed.created),
                counts_tokens=provider.counts_tokens,
                family=provider.family,
                responses=listed.responses,
            )
            for provider, listed in zip(providers, lists, strict=True)
        }
        for _ in range(round(_LIST_EVERY_S / _PUBLISH_EVERY_S)):
            with suppress(BrokerUnavailable):
                await publish(client, catalog)
            await asyncio.sleep(_PUBLISH_EVERY_S)
