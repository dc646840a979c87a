"""Mark and Redis of the tests that run in seconds, without processes of Headrace."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.client import Client, connect
from tests.broker import Broker

_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, so that `make test ARGS="-m fundamentals"` runs them alone."""
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker("fundamentals")


@pytest.fixture(scope="package")
async def redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("fundamentals"))
    await broker.start()
    yield broker
    broker.kill()


@pytest.fixture
async def client(redis: Broker) -> AsyncIterator[Client]:
    """A client of an empty Redis."""
    client = connect(redis.url, timeout_s=60)
    await client.flushall()
    yield client
    await client.aclose()
