"""Publishes the models of this worker's providers to the gateways."""

import asyncio
from contextlib import suppress
from typing import Final

from shared.broker.catalog import Catalog, ProviderModels, publish
from shared.broker.client import Client
from shared.errors import BrokerUnavailable
from workers.jobs.current_adapters import CurrentAdapters

_LIST_EVERY_S: Final = 60.0
_PUBLISH_EVERY_S: Final = 5.0


async def publish_models(client: Client, adapters: CurrentAdapters) -> None:
    """Run until cancelled: list the models every minute and publish them every 5 s, also after Redis lost them. All
    providers are published together, so that no gateway sees an incomplete list. Other adapters are listed at once,
    and providers that are no longer configured are withdrawn."""
    removed = set[str]()
    catalog: Catalog = {}
    while True:
        adapters.changed.clear()
        former = set(catalog)
        catalog = await _listed(adapters)
        removed = (removed | former) - set(catalog)
        for _ in range(round(_LIST_EVERY_S / _PUBLISH_EVERY_S)):
            with suppress(BrokerUnavailable):
                await publish(client, catalog, removed)
                removed = set()
            with suppress(TimeoutError):
                await asyncio.wait_for(adapters.changed.wait(), _PUBLISH_EVERY_S)
                break


async def _listed(adapters: CurrentAdapters) -> Catalog:
    with adapters.in_use() as used:
        providers = list(used.providers.values())
        lists = await asyncio.gather(*(provider.list_models() for provider in providers))
    return {
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
