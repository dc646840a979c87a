"""Problems of the providers of ``headrace up``, as its workers found them at their start."""

from collections.abc import Iterable
from contextlib import suppress

from shared.broker.catalog import LIST_PROBLEMS, Catalog, read_catalog
from shared.broker.client import connect
from shared.errors import BrokerUnavailable


async def read_problems(redis_url: str, providers: Iterable[str]) -> dict[str, str]:
    """Return the problem of each provider, with its remedy; empty if none is known."""
    client, listed = connect(redis_url), Catalog()
    with suppress(BrokerUnavailable):  # only the banner lacks it, and the workers have logged it
        listed = await read_catalog(client)
    await client.aclose()
    problems = {name: LIST_PROBLEMS.get(models.problem, "") for name, models in listed.items()}
    return {name: problems.get(name, "") for name in providers}
