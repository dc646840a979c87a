"""Publishes the models of this worker's providers to the gateways."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from shared.broker.catalog import LIST_PROBLEMS, Catalog, ProviderModels, publish
from shared.broker.client import Client
from shared.errors import BrokerUnavailable
from workers.jobs.current_adapters import CurrentAdapters

logger = logging.getLogger(__name__)

_LIST_EVERY_S: Final = 60.0
_PUBLISH_EVERY_S: Final = 5.0


async def publish_models(client: Client, adapters: CurrentAdapters, published: asyncio.Event) -> None:
    """Run until cancelled: list the models every minute and publish them every 5 s, also after Redis lost them. All
    providers are published together, so that no gateway sees an incomplete list. Other adapters are listed at once,
    and providers that are no longer configured are withdrawn. ``published``: set once gateways can see the models."""
    removed = set[str]()
    catalog: Catalog = {}
    problems: dict[str, str] = {}
    while True:
        adapters.changed.clear()
        former = set(catalog)
        catalog = await _listed(adapters, problems)
        removed = (removed | former) - set(catalog)
        for _ in range(round(_LIST_EVERY_S / _PUBLISH_EVERY_S)):
            with suppress(BrokerUnavailable):
                await publish(client, catalog, removed)
                removed = set()
                published.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(adapters.changed.wait(), _PUBLISH_EVERY_S)
                break


async def _listed(adapters: CurrentAdapters, problems: dict[str, str]) -> Catalog:
    """List the models. ``problems``: those that were logged last, by provider."""
    with adapters.in_use() as used:
        providers = list(used.providers.values())
        lists = await asyncio.gather(*(provider.list_models() for provider in providers))
    for provider, listed in zip(providers, lists, strict=True):
        if listed.problem in LIST_PROBLEMS and problems.get(provider.name) != listed.problem:
            detail = f"{provider.name}: {LIST_PROBLEMS[listed.problem]}; headrace check tests it"
            line = {"provider": provider.name, "code": listed.problem, "detail": detail}
            logger.warning("models not listed", extra=line)
        problems[provider.name] = listed.problem
    return {
        provider.name: ProviderModels(
            listed.models,
            listed.open,
            listed.closed,
            created=dict(listed.created),
            counts_tokens=provider.counts_tokens,
            family=provider.family,
            responses=listed.responses,
            problem=listed.problem if listed.problem in LIST_PROBLEMS else "",
        )
        for provider, listed in zip(providers, lists, strict=True)
    }
