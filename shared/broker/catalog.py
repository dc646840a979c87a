"""The model catalog: published by the workers, which hold the provider keys, and read by the gateways.

``catalog`` is a hash, provider → JSON of :class:`ProviderModels`. ``offered`` has the time at which each
provider was first offered: the date of its models that have none.
"""

import time
from collections.abc import Collection
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import CATALOG, OFFERED
from shared.model_patterns import matches_any

#: The catalog outlives an outage of all workers; requests then wait in the queue.
_LIFE_S: Final = 24 * 3600
#: Time in which others publish and no worker publishes a provider, after which it counts as taken away.
_TAKEN_AWAY_S: Final = 60
#: What an operator should know if a provider's list fails, and the remedy. A provider may lack a list, which is none.
LIST_PROBLEMS: Final = {
    "provider_auth": "it refuses the key: correct it",
    "provider_unreachable": "no connection: check its address and the network",
    "provider_connect_timeout": "no connection: check its address and the network",
    "provider_unavailable": "it answers with an error: check its address and status",
}


class ProviderModels(msgspec.Struct, frozen=True, omit_defaults=True):
    """One provider's models, under the provider's names. ``open``: any other name is passed on to it too.
    ``closed``: the provider has no others. ``created``: Unix seconds, of the models that the provider dates.
    ``offered``: when the provider was first offered; 0 if unknown. ``counts_tokens``: the provider counts the tokens
    of a request without answering it. ``family``: of the provider's wire format; empty if it is the name.
    ``responses``: patterns of the models that have the family of Responses instead. ``published``: when a worker
    published this last; 0 by one of 0.2, and from :func:`read_catalog`. ``problem``: code of the error with which the
    provider's list failed, if an operator should know of it (:data:`LIST_PROBLEMS`)."""

    models: tuple[str, ...]
    open: bool = False
    closed: bool = False
    created: dict[str, int] = {}
    counts_tokens: bool = False
    offered: int = 0
    family: str = ""
    responses: tuple[str, ...] = ()
    published: int = 0
    problem: str = ""

    def has(self, model: str) -> bool:
        return self.open or model in self.models

    def family_of(self, model: str) -> str:
        """Return the family of a model's wire format; empty if it is the provider's name."""
        return "responses" if matches_any(model, self.responses) else self.family

    def created_at(self, model: str) -> int:
        """Return the model's date in Unix seconds: the provider's, else the time of the first offer."""
        return self.created.get(model, self.offered)


Catalog = dict[str, ProviderModels]
_decoder = msgspec.json.Decoder(ProviderModels)


async def publish(client: Client, catalog: Catalog, removed: Collection[str] = ()) -> None:
    """Publish one worker's models, all at once. ``removed``: providers that it offers no longer; a worker that still
    has them publishes them again. Raises :class:`BrokerUnavailable`."""
    if not catalog:
        return
    now = int(time.time())
    dated = {name: msgspec.structs.replace(offered, published=now) for name, offered in catalog.items()}
    fields = [item for name, offered in dated.items() for item in (name, msgspec.json.encode(offered))]
    offers = [item for name in catalog for item in (now, name)]
    await run_commands(
        client,
        [
            ("HSET", CATALOG, *fields),
            *([("HDEL", CATALOG, *removed)] if removed else []),
            ("EXPIRE", CATALOG, _LIFE_S),
            ("ZADD", OFFERED, "NX", *offers),
            ("EXPIRE", OFFERED, _LIFE_S),
        ],
    )


async def read_catalog(client: Client) -> Catalog:
    """Return the models of all providers that workers offer, or the last ones offered. Raises
    :class:`BrokerUnavailable`."""
    flat, offers = await run_commands(client, [("HGETALL", CATALOG), ("ZRANGE", OFFERED, 0, -1, "WITHSCORES")])
    stored = {name: _decoder.decode(models) for name, models in sorted(zip(flat[::2], flat[1::2], strict=True))}
    offered = dict(zip(offers[::2], offers[1::2], strict=True))
    newest = max((models.published for models in stored.values()), default=0)
    return {
        name.decode(): msgspec.structs.replace(models, offered=int(offered.get(name, 0)), published=0)
        for name, models in stored.items()
        if not models.published or newest - models.published < _TAKEN_AWAY_S
    }
