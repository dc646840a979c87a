"""The configuration that all processes share."""

from shared.broker.client import Client
from shared.broker.shared_configuration import publish, read
from shared.rate_limits import TargetLimits


async def test_the_file_that_was_read_last_is_the_newest(client: Client) -> None:
    assert await read(client) is None
    await publish(client, "a", 100, {"p": TargetLimits(concurrent_streams=1)})
    await publish(client, "b", 200, {})
    await publish(client, "a", 150, {"p": TargetLimits(concurrent_streams=1)})
    newest = await read(client)
    assert newest is not None
    assert (newest.hash, newest.loaded_at, newest.limits) == ("b", 200, {})
    await publish(client, "a", 201, {"p": TargetLimits(tokens_per_minute=7)})
    newest = await read(client)
    assert newest is not None
    assert (newest.hash, newest.limits) == ("a", {"p": TargetLimits(tokens_per_minute=7)})
