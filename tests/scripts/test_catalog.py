"""The catalog of models has what running workers offer."""

import msgspec

from shared.broker.catalog import ProviderModels, publish, read_catalog
from shared.broker.client import Client, run_commands
from shared.broker.keys import CATALOG


async def test_a_provider_that_only_former_workers_had_is_withdrawn(client: Client) -> None:
    """One that a worker of 0.2 published has no time, and stays; so does all if nobody publishes any more."""
    offers = {name: ProviderModels((f"{name}-1",)) for name in ("kept", "former", "of_old_worker")}
    await publish(client, offers)
    assert set(await read_catalog(client)) == set(offers)
    for name, age_s in (("kept", 90), ("former", 100)):
        await age(client, name, age_s)
    await store(client, "of_old_worker", offers["of_old_worker"])
    assert set(await read_catalog(client)) == set(offers)
    await publish(client, {"kept": offers["kept"]})
    catalog = await read_catalog(client)
    assert set(catalog) == {"kept", "of_old_worker"}
    assert catalog["kept"].models == ("kept-1",)
    await publish(client, {"former": offers["former"]})
    assert set(await read_catalog(client)) == set(offers)


async def age(client: Client, provider: str, seconds: float) -> None:
    (stored,) = await run_commands(client, [("HGET", CATALOG, provider)])
    await store(
        client, provider, (offer := msgspec.json.decode(stored)) | {"published": offer["published"] - seconds}
    )


async def store(client: Client, provider: str, offer: object) -> None:
    await run_commands(client, [("HSET", CATALOG, provider, msgspec.json.encode(offer))])
