"""Fixtures of the tests of the scripts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.broker.client import Client, connect
from tests.broker import Broker
from tests.broker_cluster import Cluster
from tests.scripts.stream import ON_CLUSTER

#: Longer than a test of this folder takes.
_TEST_LASTS = timedelta(seconds=30)


@pytest.fixture(scope="session")
async def scripts_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    folder = tmp_path_factory.mktemp("scripts")
    if ON_CLUSTER:
        cluster = Cluster(folder, masters=1)
        await cluster.start()
        yield cluster.nodes[0]
        await cluster.stop()
        return
    broker = Broker(folder)
    await broker.start()
    yield broker
    broker.kill()


@pytest.fixture
async def client(scripts_broker: Broker) -> AsyncIterator[Client]:
    """A client of an empty Redis, in which no test may leave a key without expiry. No test runs over the end of a
    day, at which limits and budgets begin anew."""
    while (now := datetime.now(UTC)).date() != (now + _TEST_LASTS).date():
        await asyncio.sleep(0.1)
    client = connect(scripts_broker.url, timeout_s=60)
    await client.flushall()
    yield client
    assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []
    await client.aclose()
