"""Streams of real gateways and workers on a cluster."""

from collections.abc import AsyncIterator

import pytest

from tests.broker_cluster import Cluster
from tests.cluster.system import ClusterSystem
from tests.fakes.answer import Answer
from tests.sse_client import text_of

WORDS = [f"w{i} " for i in range(60)]


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    servers = Cluster(tmp_path_factory.mktemp("cluster"), replicas=1)
    await servers.start()
    yield servers
    await servers.stop()


@pytest.fixture(scope="module")
async def system(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterSystem]:
    """Yield two gateways and two workers on three masters and their replicas."""
    system = ClusterSystem(tmp_path_factory.mktemp("system"), cluster, providers=("openai",))
    try:
        await system.start()
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def test_an_answer_is_streamed_and_resumed_through_another_gateway(system: ClusterSystem) -> None:
    system.fake.play("whole", Answer(deltas=WORDS, delay_s=0.02))
    for number in range(6):  # in several buckets
        async with await system.stream("whole", gateway=number % 2) as first:
            heard = [await first.next("token") for _ in range(10)]
        async with await system.read(first.stream_id, heard[-1].id, gateway=1 - number % 2) as second:
            frames = await second.rest()
        assert text_of([*heard, *frames]) == "".join(WORDS)
        assert frames[-1].data["finish_reason"] == "stop"
        assert (await system.status(first.stream_id))["text"] == "".join(WORDS)
